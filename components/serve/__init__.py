"""The server of our images, for what KServe's own refuses: it speaks the Open Inference Protocol."""
