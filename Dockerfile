# Two stages: the compiler stays behind.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# The cache mounts keep dependencies between builds; the binary has to be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin rollcall && cp target/release/rollcall /rollcall

FROM debian:bookworm-slim
# amqps:// and https:// peers are checked against the system's authorities.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /rollcall /usr/local/bin/rollcall
# A number, so that orchestrators can see that it is not root. The volume inherits the owner.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
ENV ROLLCALL_DATA_DIR=/data
STOPSIGNAL SIGTERM
ENTRYPOINT ["rollcall"]
CMD ["serve"]
