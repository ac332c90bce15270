//! One offer on sale, with everything real around it.

use alloy_primitives::Address;

use crate::{
    anvil::Anvil,
    facilitators::{Facilitator, Maker},
    forge,
    stack::Stack,
    upstream::Upstream,
};

/// A running node that sells one offer, for [`Stack::sell`]'s price, to a payee who owns nothing yet.
#[derive(Debug)]
pub struct Shop {
    /// The chain.
    pub anvil: Anvil,
    /// Who settles.
    pub facilitator: Facilitator,
    /// What is sold. Nothing has been asked of it.
    pub upstream: Upstream,
    /// Who is paid.
    pub payee: Address,
    /// The node, which is up.
    pub stack: Stack,
}

impl Shop {
    /// Opens, and waits until a buyer would be told the price.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn open(name: &str, maker: Maker) -> Self {
        let anvil = Anvil::start().await;
        let facilitator = Facilitator::start(maker, &anvil.url);
        let (upstream, payee, mut stack) = (Upstream::start().await, forge::fresh_address(), Stack::new());
        stack.up().await;
        stack.sell(name, &upstream.url, &payee.to_checksum(None), &facilitator.url);
        stack.wait_for(&format!("/services/{name}"), 402).await;
        upstream.take_seen();
        Self { anvil, facilitator, upstream, payee, stack }
    }
}
