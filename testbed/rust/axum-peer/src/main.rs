//! A paid and a free route behind x402-axum, for the benchmark.
//!
//! Environment: `FACILITATOR_URL`, `PAY_TO`. Prints its own URL as one JSON line once it listens.

use std::error::Error;

use alloy_primitives::Address;
use axum::{Router, routing::get};
use x402_axum::X402Middleware;
use x402_chain_eip155::{KnownNetworkEip155, V2Eip155Exact};
use x402_types::networks::USDC;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let x402 = X402Middleware::new(&std::env::var("FACILITATOR_URL")?);
    let pay_to: Address = std::env::var("PAY_TO")?.parse()?;
    let price = V2Eip155Exact::price_tag(pay_to, USDC::base_sepolia().parse("0.001")?);
    let app = Router::new().route("/free", get(async || "hello")).route("/paid", get(async || "hello").layer(x402.with_price_tag(price)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{{\"url\":\"http://{}\"}}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
