//! `obol sandbox`: play money on the running node.

use obol_offer::{Address, Amount, Network, Price, SANDBOX};
use serde_json::json;

use crate::{
    args::SandboxCommand,
    commands::context::Context,
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Gives play money, or tells how much there is.
pub async fn run(command: SandboxCommand, printer: &Printer) -> Result<Exit, Error> {
    let asset = Network::find(SANDBOX).map(Network::default_asset);
    let (decimals, symbol) = asset.map_or((6, "PLAY".to_owned()), |asset| (asset.decimals, asset.symbol));
    let (address, balance) = match command {
        SandboxCommand::Fund { address, amount } => {
            let (to, amount) = (parse_address(&address)?, parse_amount(&amount, decimals)?);
            (to, Context::open()?.need_node().await?.sandbox_mint(to, amount).await?)
        }
        SandboxCommand::Balance { address } => {
            let of = parse_address(&address)?;
            (of, Context::open()?.need_node().await?.sandbox_balance(of).await?)
        }
    };
    let play = balance.to_decimal(decimals);
    printer.data(&json!({ "address": address, "balance": balance, "play": play }), || format!("{play} {symbol}"));
    Ok(Exit::Done)
}

fn parse_address(text: &str) -> Result<Address, Error> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Error::Refused(vec![Problem::new("address", format!("`{shown}` is no address"), "write 0x and 40 hex digits").at("ADDRESS")])
    })
}

fn parse_amount(text: &str, decimals: u8) -> Result<Amount, Error> {
    text.parse::<Price>().and_then(|price| price.to_amount(decimals)).map_err(|error| {
        Error::Refused(vec![Problem::new("amount", error.to_string(), "write a decimal above zero such as 100").at("AMOUNT")])
    })
}
