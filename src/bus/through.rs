//! A bus for tests that is another but for how it publishes.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::{
    Bus, BusError, Outgoing, PublishError, Queue, QueueDepth, Reply, SharedBus, Subscription, SubscriptionError,
};

type Publish = dyn Fn(SharedBus, Vec<Outgoing>) -> BoxFuture<'static, Result<(), PublishError>> + Send + Sync;

/// See the module.
pub(crate) struct Through {
    pub(crate) bus: SharedBus,
    pub(crate) publish: Box<Publish>,
}

#[async_trait]
impl Bus for Through {
    async fn declare(&self) -> Result<(), BusError> {
        self.bus.declare().await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), PublishError> {
        (self.publish)(self.bus.clone(), messages).await
    }

    async fn reply(&self, address: &str, body: Bytes) {
        self.bus.reply(address, body).await;
    }

    fn replies(&self) -> mpsc::Receiver<Reply> {
        self.bus.replies()
    }

    async fn subscribe(&self, queues: &[(Queue, u16)]) -> Result<Box<dyn Subscription>, SubscriptionError> {
        self.bus.subscribe(queues).await
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, BusError> {
        self.bus.depths().await
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}
