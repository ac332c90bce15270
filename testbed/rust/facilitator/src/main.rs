//! The facilitator of x402-rs over HTTP: exact, both versions, on one Anvil.
//!
//! Environment: `RPC_URL`, `FACILITATOR_KEY`. Prints its own URL as one JSON line once it listens.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use alloy_provider::Provider;
use serde_json::{Value, json};
use x402_chain_eip155::{
    V1Eip155Exact, V2Eip155Exact,
    chain::{
        Eip155ChainProvider, Eip155ChainReference, Eip155MetaTransactionProvider,
        config::{Eip155ChainConfig, Eip155ChainConfigInner},
    },
};
use x402_facilitator_local::{FacilitatorLocal, handlers};
use x402_types::{
    chain::{ChainId, ChainRegistry, FromConfig},
    scheme::{SchemeBlueprints, SchemeRegistry, X402SchemeFacilitator, X402SchemeFacilitatorBuilder, X402SchemeId},
};

const CHAIN: u64 = 84532;

/// The registry hands out references to providers, the schemes want to own theirs.
struct Shared<S>(S);

impl<S: X402SchemeId> X402SchemeId for Shared<S> {
    fn x402_version(&self) -> u8 {
        self.0.x402_version()
    }
    fn namespace(&self) -> &str {
        self.0.namespace()
    }
    fn scheme(&self) -> &str {
        self.0.scheme()
    }
}

impl<P, S: X402SchemeFacilitatorBuilder<Arc<P>>> X402SchemeFacilitatorBuilder<&Arc<P>> for Shared<S> {
    fn build(&self, provider: &Arc<P>, config: Option<Value>) -> Result<Box<dyn X402SchemeFacilitator>, Box<dyn Error>> {
        self.0.build(Arc::clone(provider), config)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let inner: Eip155ChainConfigInner = serde_json::from_value(json!({
        "signers": [std::env::var("FACILITATOR_KEY")?],
        "rpc": [{ "http": std::env::var("RPC_URL")? }],
    }))?;
    let config = Eip155ChainConfig { chain_reference: Eip155ChainReference::new(CHAIN), inner };
    let provider = Eip155ChainProvider::from_config(&config).await?;
    // The crate polls for receipts every 7 s; Anvil mines at once.
    provider.inner().client().set_poll_interval(Duration::from_millis(50));

    let chain = ChainId::new("eip155", CHAIN.to_string());
    let chains = ChainRegistry::new(HashMap::from([(chain, Arc::new(provider))]));
    let blueprints = SchemeBlueprints::new().and_register(Shared(V1Eip155Exact)).and_register(Shared(V2Eip155Exact));
    let schemes = serde_json::from_value(json!([
        { "id": "v1-eip155-exact", "chains": "eip155:*" },
        { "id": "v2-eip155-exact", "chains": "eip155:*" },
    ]))?;
    let facilitator = Arc::new(FacilitatorLocal::new(SchemeRegistry::build(chains, blueprints, &schemes)));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({ "url": format!("http://{}", listener.local_addr()?) }));
    axum::serve(listener, handlers::routes().with_state(facilitator)).await?;
    Ok(())
}
