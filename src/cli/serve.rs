//! `serve`, and what it says to whoever started it by hand.

use anyhow::Result;
use rollcall::app::{self, Addresses};
use rollcall::config::{BusUrl, Config, EdgeAuth, Roles};
use rollcall::telemetry;

use super::out;

pub(super) async fn run(config: Config, roles: Roles) -> Result<()> {
    telemetry::start(&config.log)?;
    for key in &config.reserved.set {
        tracing::warn!(key, "is reserved: nothing in this version acts on it");
    }
    let greeting = Greeting::of(&config, roles);
    app::serve(config, roles, |addresses| greeting.print(addresses)).await
}

struct Greeting {
    server: String,
    roles: Roles,
    queues: String,
    dev: bool,
    scheme: &'static str,
}

impl Greeting {
    fn of(config: &Config, roles: Roles) -> Self {
        let queues = match &config.bus.url {
            BusUrl::Embedded => format!("embedded, in {}", config.store.path.display()),
            BusUrl::Amqp(_) => format!("RabbitMQ, named {}*", config.bus.prefix),
        };
        Self {
            server: config.server_name.to_string(),
            roles,
            queues,
            dev: config.edge.auth == EdgeAuth::Dev,
            scheme: if config.edge.tls.is_some() { "https" } else { "http" },
        }
    }

    fn print(&self, addresses: &Addresses) -> Result<()> {
        out::line(&format!("rollcall serves {} ({})", self.server, self.roles))?;
        let scheme = self.scheme;
        if let Some(edge) = addresses.edge {
            out::line(&format!("  edge        {scheme}://{edge}"))?;
        }
        out::line(&format!("  operations  http://{}  (dashboard, /metrics, /readyz)", addresses.ops))?;
        out::line(&format!("  queues      {}", self.queues))?;
        match addresses.edge {
            Some(edge) if self.dev => self.invite(&format!("{scheme}://{edge}")),
            _ => Ok(()),
        }
    }

    /// Two lines to paste into another terminal.
    fn invite(&self, edge: &str) -> Result<()> {
        let user = format!("@alice:{}", self.server);
        let url = format!("{edge}/_matrix/client/v3/presence/{user}/status");
        let token = format!("-H 'Authorization: Bearer {user}|PHONE'");
        let body = r#"'{"presence": "online", "status_msg": "cupcakes"}'"#;
        out::line("\nin another terminal, set a presence:")?;
        out::line(&format!("  curl -X PUT {token} -d {body} '{url}'"))?;
        out::line("and read it:")?;
        out::line(&format!("  curl {token} '{url}'\n"))
    }
}
