FROM busybox
ENV BASE_ENV=base SHARED=base
LABEL base.label=base shared=base
WORKDIR /base
EXPOSE 1000
VOLUME /base-volume
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["/base-entrypoint"]
CMD ["base-command"]
