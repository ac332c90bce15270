//! `buyer URL`: pays with x402-reqwest, both protocol versions registered.
//!
//! Environment: `X402_KEY`. Prints the answer as one JSON line.

use std::{error::Error, sync::Arc};

use alloy_signer_local::PrivateKeySigner;
use serde_json::{Value, json};
use x402_chain_eip155::{V1Eip155ExactClient, V2Eip155ExactClient};
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};
use x402_types::util::Base64Bytes;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: buyer URL")?;
    let key: Arc<PrivateKeySigner> = Arc::new(std::env::var("X402_KEY")?.parse()?);
    let client = X402Client::new().register(V2Eip155ExactClient::new(Arc::clone(&key))).register(V1Eip155ExactClient::new(key));
    let answer = reqwest::Client::new().with_payments(client).build().get(url).send().await?;

    let status = answer.status().as_u16();
    let header = ["payment-response", "x-payment-response"].iter().find_map(|name| answer.headers().get(*name));
    let receipt = match header {
        Some(value) => serde_json::from_slice::<Value>(&Base64Bytes::from(value.as_bytes()).decode()?)?,
        None => Value::Null,
    };
    println!("{}", json!({ "status": status, "body": answer.text().await?, "receipt": receipt }));
    Ok(())
}
