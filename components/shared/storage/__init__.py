"""Where results are published: folders, buckets, champions."""
