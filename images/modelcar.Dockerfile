# A packaged model as an image, which KServe pulls as it pulls any other: storageUri: oci://REPOSITORY:TAG (a "modelcar").
# `make image-model MODEL=folder` builds it from a folder of `bonsai package-model`; images/README.md says more.
# The base gives sh, ln and sleep, by which KServe links /models into its server.
ARG MODELCAR_BASE=busybox:stable
FROM ${MODELCAR_BASE}
COPY --chmod=a+rX . /models
USER 10001:0
