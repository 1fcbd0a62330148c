//! What tools open beside a running deployment.

use crate::bus::amqp::{Amqp, client_name};
use crate::bus::embedded::Embedded;
use crate::bus::{BusError, SharedBus};
use crate::config::{BusUrl, Config};
use crate::store::sqlite::{Mode, Sqlite};
use crate::store::{SharedStore, StoreError};

/// Why there is no bus for a tool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The broker.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// What lies under the embedded bus.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bus, and what lies under it, opened by a process that owns no partition.
pub struct GuestBus {
    bus: SharedBus,
    store: Option<SharedStore>,
}

impl GuestBus {
    /// Opens the bus that `config` names, for the tool called `tool`; an embedded one beside its owner or without it.
    ///
    /// # Errors
    /// When the broker cannot be reached, or there is no store yet.
    pub async fn open(config: &Config, tool: &str) -> Result<Self, OpenError> {
        let topology = config.topology();
        if let BusUrl::Amqp(_) = config.bus.url {
            let client = client_name(&config.server_name, tool, &std::process::id().to_string());
            return Ok(Self { bus: Amqp::connect(&config.bus, topology, &client).await?, store: None });
        }
        let store = Sqlite::open(&config.store.path, Mode::Guest).await?;
        let bus = Embedded::new(store.clone(), topology, config.bus.confirm_timeout).shared();
        Ok(Self { bus, store: Some(store) })
    }

    /// The bus.
    pub fn bus(&self) -> &SharedBus {
        &self.bus
    }

    /// Waits for what is being published, then closes everything.
    pub async fn close(self) {
        self.bus.close().await;
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}
