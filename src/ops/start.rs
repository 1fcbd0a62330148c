//! What the log says when a process starts, for whoever reads only that.

use crate::config::{BusUrl, Config, EdgeAuth, Roles};
use crate::ops::status::About;

/// One line of what starts, and a warning where anybody may be anybody.
pub fn say(config: &Config, roles: Roles) {
    let About { server, version, roles: named, bus, .. } = About::new(config, roles);
    let store = config.store.path.display();
    match config.bus.url {
        BusUrl::Embedded => tracing::info!(version, server, roles = named, bus, %store, "starting"),
        BusUrl::Amqp(_) => {
            let prefix = &config.bus.prefix;
            tracing::info!(version, server, roles = named, bus, prefix, %store, "starting");
        }
    }
    if roles.edge && config.edge.auth == EdgeAuth::Dev {
        tracing::warn!(
            listen = %config.edge.listen,
            "edge.auth is \"dev\": whoever reaches this address is believed to be any user, also through a reverse proxy here"
        );
    }
}
