FROM busybox
ONBUILD COPY seed /seed
ONBUILD RUN cat /seed >/grown
ONBUILD ENV TRIGGERED=yes
