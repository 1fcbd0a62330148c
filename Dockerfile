# Two stages: the compiler stays behind. No cache mounts: two checkouts would share them, and cargo goes by the age of files.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# Dependencies first, for targets that are still empty: this layer stays until Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin rollcall
COPY config/default.toml config/
COPY src src
# Newer than what was built of the empty ones. Without line numbers a backtrace still names functions, and the file is a fraction.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin rollcall \
    && strip --strip-debug -o /rollcall target/release/rollcall

# bookworm, as above: the same C library.
FROM debian:12-slim
LABEL org.opencontainers.image.title="rollcall" \
      org.opencontainers.image.description="Federated presence for Matrix as a message-queue pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"
# amqps:// and https:// peers are checked against the system's authorities.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY LICENSE /usr/share/doc/rollcall/
COPY --from=build /rollcall /usr/local/bin/rollcall
# A number, so that orchestrators can see that it is not root. The volume inherits the owner.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
ENV ROLLCALL_DATA_DIR=/data
# The edge, and operations. Both listen on loopback until edge.listen and ops.listen say otherwise: a published port needs that, and
# the edge then another edge.auth than "dev".
EXPOSE 8470 9470
STOPSIGNAL SIGTERM
ENTRYPOINT ["rollcall"]
CMD ["serve"]
