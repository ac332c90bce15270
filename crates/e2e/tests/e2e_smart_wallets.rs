//! Smart wallets that are not deployed yet (ERC-6492): a real EVM node, the real Multicall3, a wallet that
//! checks its owner's signature. Paying deploys them, and whatever a buyer names as a factory costs us nothing.

use std::{process::Command, time::Duration};

use alloy_primitives::{Address, B256, Bytes, U256, address, hex};
use alloy_sol_types::{SolCall, SolValue, sol};
use obol_chain::SelfFacilitator;
use obol_e2e::{
    anvil::{Anvil, KEYS, MULTICALL3, USDC, WALLET_FACTORY as FACTORY},
    buyers,
    facilitators::{Facilitator as Remote, Maker, Role, chain, in_process},
    forge, http, part,
    stack::Stack,
    upstream::Upstream,
};
use obol_offer::{Scheme, Terms};
use obol_settle::{ChainFinding, ChainView, Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{
    Authorization, AuthorizationKind, LocalCheck, MatchedPayment, PaymentHeaders, Quote, QuoteInfo, decode, match_payment,
    permit2::UPTO_PROXY, signing,
};
use secp256k1::{Message, Secp256k1, ecdsa::RecoveryId};
use serde_json::{Value, json};

const PRICE: u64 = 1_000;
/// The key that pays for gas.
const GAS: &str = KEYS[0];
/// The key of the wallets' owner, who has no money.
const OWNER: &str = "0x00000000000000000000000000000000000000000000000000000000000a11ce";
/// An account with money.
const FRIEND: &str = KEYS[8];
const HOSTILE: Address = address!("0000000000000000000000000000000facade002");

sol! {
    function createAccount(address owner, bytes32 salt) returns (address account);
    function accountOf(address owner, bytes32 salt) returns (address account);
    function fail();
    function burn(address factory, address owner, bytes32 salt, uint256 writes);

    function transfer(address to, uint256 value);
    function approve(address spender, uint256 value);
    function allowance(address owner, address spender) returns (uint256 left);

    struct Call3 { address target; bool allowFailure; bytes callData; }
    function aggregate3(Call3[] calls);

    struct TokenPermissions { address token; uint256 amount; }
    struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
    struct UptoWitness { address to; address facilitator; uint256 validAfter; }
    function settle(PermitTransferFrom permit, uint256 amount, address owner, UptoWitness witness, bytes signature);
}

async fn anvil() -> Anvil {
    let anvil = Anvil::start().await;
    anvil.place_multicall3().await;
    anvil.place("SmartWalletFactory", FACTORY).await;
    anvil.place("HostileFactory", HOSTILE).await;
    anvil
}

/// A wallet that its owner has had somebody send money to, and that is not deployed.
struct Wallet {
    address: Address,
    salt: B256,
}

impl Wallet {
    async fn new(anvil: &Anvil, money: u64) -> Self {
        let salt = B256::from(rand::random::<[u8; 32]>());
        let asked = accountOfCall { owner: forge::address(OWNER), salt };
        let address = asked_of(anvil, FACTORY, &asked).await;
        if money > 0 {
            anvil.transact(forge::address(FRIEND), USDC, transferCall { to: address, value: U256::from(money) }.abi_encode()).await;
        }
        Self { address, salt }
    }

    /// What deploys it, for [`FACTORY`].
    fn creation(&self) -> Vec<u8> {
        createAccountCall { owner: forge::address(OWNER), salt: self.salt }.abi_encode()
    }

    /// The signature that wraps its owner's.
    fn wrap(&self, signature: &[u8]) -> Vec<u8> {
        wrap(FACTORY, &self.creation(), signature)
    }
}

fn wrap(factory: Address, calldata: &[u8], signature: &[u8]) -> Vec<u8> {
    let body = (factory, Bytes::copy_from_slice(calldata), Bytes::copy_from_slice(signature)).abi_encode_params();
    [body, [0x64, 0x92].repeat(16)].concat()
}

async fn asked_of<C: SolCall>(anvil: &Anvil, contract: Address, call: &C) -> C::Return {
    let data = hex::encode_prefixed(call.abi_encode());
    let returned: Bytes =
        serde_json::from_value(anvil.rpc("eth_call", json!([{ "to": contract, "data": data }, "latest"])).await).expect("bytes");
    C::abi_decode_returns(&returned).expect("its answer")
}

/// The header of a payment from `payer` that `key` has signed, the signature wrapped by `wrap`.
async fn header(anvil: &Anvil, payee: Address, payer: Address, key: &str, wrap: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let (terms, valid_before) = (forge::terms(payee, PRICE), anvil.now().await + 200);
    let mut payment = forge::payment(key, &terms, 0, valid_before);
    let inner = &mut payment["payload"];
    let nonce = inner["authorization"]["nonce"].as_str().and_then(|nonce| nonce.parse().ok()).expect("a nonce");
    let (kind, signature) = (AuthorizationKind::Eip3009, Vec::new());
    let signed = Authorization { from: payer, to: payee, value: PRICE.into(), valid_after: 0, valid_before, nonce, kind, signature };
    let message = Message::from_digest(signing::digest(&terms, &signed).0);
    let (id, rs) = Secp256k1::new().sign_ecdsa_recoverable(message, &forge::secret(key)).serialize_compact();
    let v = if id == RecoveryId::One { 28 } else { 27 };
    inner["authorization"]["from"] = payer.to_checksum(None).into();
    inner["signature"] = hex::encode_prefixed(wrap(&[rs.as_slice(), &[v]].concat())).into();
    forge::header(&payment)
}

/// A payment that a gateway has matched.
async fn payment_by(anvil: &Anvil, payee: Address, payer: Address, key: &str, wrap: impl FnOnce(&[u8]) -> Vec<u8>) -> MatchedPayment {
    let header = header(anvil, payee, payer, key, wrap).await;
    let headers = PaymentHeaders { v1: vec![], v2: vec![header.as_bytes()] };
    let payment = decode(&headers).expect("the header is well formed").expect("there is a payment");
    let quote = Quote::new(vec![forge::terms(payee, PRICE)], QuoteInfo::default());
    let now = anvil.now().await;
    match_payment(&payment, &quote, "http://127.0.0.1/services/x", now, |_| true).expect("it matches")
}

/// One of a wallet, signed by its owner.
async fn payment(anvil: &Anvil, payee: Address, wallet: &Wallet, wrap: impl FnOnce(&[u8]) -> Vec<u8>) -> MatchedPayment {
    let payment = payment_by(anvil, payee, wallet.address, OWNER, wrap).await;
    assert_eq!(payment.local_check, LocalCheck::Undecided, "only the chain can tell");
    payment
}

/// How many transactions the facilitator has sent.
async fn sent(anvil: &Anvil) -> Value {
    anvil.rpc("eth_getTransactionCount", json!([forge::address(GAS), "latest"])).await
}

/// Whom a settlement has called.
async fn settled_by(anvil: &Anvil, outcome: &SettleOutcome, payer: Address) -> Address {
    let SettleOutcome::Settled(receipt) = outcome else { panic!("not settled: {outcome:?}") };
    assert_eq!((receipt.payer, receipt.amount), (payer, PRICE.into()));
    let sent = anvil.rpc("eth_getTransactionByHash", json!([receipt.transaction])).await;
    serde_json::from_value(sent["to"].clone()).expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_deployed_by_what_it_pays_and_pays_again() {
    let anvil = anvil().await;
    let (us, chain, payee) = (in_process(&anvil, GAS), chain(&anvil), forge::fresh_address());
    let (wallet, since) = (Wallet::new(&anvil, 10 * PRICE).await, anvil.now().await);

    let first = payment(&anvil, payee, &wallet, |signature| wallet.wrap(signature)).await;
    assert_eq!(us.verify(&first).await, VerifyOutcome::Valid { payer: wallet.address });
    assert_eq!((anvil.code(wallet.address).await, anvil.balance(payee).await), (json!("0x"), U256::ZERO), "verifying does nothing");
    assert!(matches!(chain.look(&first, since, None).await, ChainFinding::Unused { is_final: false, .. }));

    let outcome = us.settle(&first).await;
    assert_eq!(settled_by(&anvil, &outcome, wallet.address).await, MULTICALL3);
    assert_ne!(anvil.code(wallet.address).await, json!("0x"));
    assert_eq!(anvil.balance(payee).await, U256::from(PRICE));
    // Asked again, after a crash too, it tells the same; so does the chain.
    assert_eq!(us.settle(&first).await, outcome);
    assert_eq!(in_process(&anvil, GAS).settle(&first).await, outcome);
    assert_eq!(us.verify(&first).await, VerifyOutcome::Invalid { reason: "invalid_exact_evm_nonce_already_used".into() });
    let SettleOutcome::Settled(receipt) = outcome else { unreachable!("it is settled") };
    let finding = ChainFinding::Settled { transaction: receipt.transaction.clone(), amount: PRICE.into(), is_final: false };
    for named in [None, Some(receipt.transaction.as_str())] {
        assert_eq!(chain.look(&first, since, named).await, finding);
    }
    assert_eq!(sent(&anvil).await, json!("0x1"), "one transaction was paid for");

    // Deployed, it pays as any other, whether or not it still wraps its signatures.
    for (wrapped, paid) in [(true, 2), (false, 3)] {
        let wrapping = |signature: &[u8]| if wrapped { wallet.wrap(signature) } else { signature.to_vec() };
        let next = payment(&anvil, payee, &wallet, wrapping).await;
        assert_eq!(us.verify(&next).await, VerifyOutcome::Valid { payer: wallet.address }, "wrapped {wrapped}");
        assert_eq!(settled_by(&anvil, &us.settle(&next).await, wallet.address).await, USDC, "wrapped {wrapped}");
        assert_eq!(anvil.balance(payee).await, U256::from(paid * PRICE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payments_of_an_undeployed_wallet_in_one_block_are_both_made() {
    let anvil = anvil().await;
    let (us, payee, wallet) = (in_process(&anvil, GAS), forge::fresh_address(), Wallet::new(&anvil, 2 * PRICE).await);
    let (first, second) = (
        payment(&anvil, payee, &wallet, |signature| wallet.wrap(signature)).await,
        payment(&anvil, payee, &wallet, |signature| wallet.wrap(signature)).await,
    );
    anvil.rpc("evm_setAutomine", json!([false])).await;
    let mined = async {
        while anvil.rpc("txpool_status", json!([])).await["pending"] != "0x2" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anvil.rpc("evm_mine", json!([])).await;
    };
    let (first, second, ()) = tokio::join!(us.settle(&first), us.settle(&second), mined);
    for outcome in [first, second] {
        assert_eq!(settled_by(&anvil, &outcome, wallet.address).await, MULTICALL3);
    }
    assert_eq!(anvil.balance(payee).await, U256::from(2 * PRICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_needs_no_factory_and_calls_none() {
    let anvil = anvil().await;
    let (us, payee, payer) = (in_process(&anvil, GAS), forge::fresh_address(), forge::address(FRIEND));
    let fails = |signature: &[u8]| wrap(HOSTILE, &failCall {}.abi_encode(), signature);
    let payment = payment_by(&anvil, payee, payer, FRIEND, fails).await;
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer });
    assert_eq!(settled_by(&anvil, &us.settle(&payment).await, payer).await, USDC);
    assert_eq!(anvil.balance(payee).await, U256::from(PRICE));
}

/// Neither verified nor settled, for one reason, at no cost.
async fn is_refused(anvil: &Anvil, us: &SelfFacilitator, payment: &MatchedPayment, reason: &str) {
    let payee = payment.terms.pay_to;
    assert_eq!(us.verify(payment).await, VerifyOutcome::Invalid { reason: reason.into() });
    assert_eq!(us.settle(payment).await, SettleOutcome::Refused { reason: reason.into() });
    assert_eq!((sent(anvil).await, anvil.balance(payee).await), (json!("0x0"), U256::ZERO), "{reason}");
    assert_eq!(anvil.code(payment.authorization.from).await, json!("0x"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_what_does_not_deploy_the_wallet_that_has_signed_costs_nothing() {
    let anvil = anvil().await;
    let (us, payee, wallet) = (in_process(&anvil, GAS), forge::fresh_address(), Wallet::new(&anvil, PRICE).await);
    let other = Wallet::new(&anvil, 0).await;
    let owner = forge::address(OWNER);
    let burn = |writes: u64| {
        let call = burnCall { factory: FACTORY, owner, salt: wallet.salt, writes: U256::from(writes) };
        move |signature: &[u8]| wrap(HOSTILE, &call.abi_encode(), signature)
    };
    let bad = "invalid_exact_evm_payload_signature";
    let wrong = |signature: &[u8]| wallet.wrap(&[&signature[..64], &[signature[64] ^ 7]].concat());
    is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, wrong).await, bad).await;
    let reverts = |signature: &[u8]| wrap(HOSTILE, &failCall {}.abi_encode(), signature);
    is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, reverts).await, "smart_wallet_deployment_failed").await;
    // More gas than there is, and less, but more than anybody's deployment may take.
    for writes in [1_000_000, 2_000] {
        is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, burn(writes)).await, "gas_above_bound").await;
    }
    is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, |signature| other.wrap(signature)).await, bad).await;
    let nobody = |signature: &[u8]| wrap(forge::fresh_address(), &wallet.creation(), signature);
    is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, nobody).await, bad).await;
    let cut = |signature: &[u8]| [&wallet.wrap(signature)[..200], &[0x64, 0x92].repeat(16)].concat();
    is_refused(&anvil, &us, &payment(&anvil, payee, &wallet, cut).await, bad).await;
    let mut long = payment(&anvil, payee, &wallet, |signature| wallet.wrap(signature)).await;
    long.authorization.signature = wrap(FACTORY, &[wallet.creation(), vec![7; 100_000]].concat(), &[7; 65]);
    is_refused(&anvil, &us, &long, "gas_above_bound").await;
    let poor = Wallet::new(&anvil, PRICE - 1).await;
    is_refused(&anvil, &us, &payment(&anvil, payee, &poor, |signature| poor.wrap(signature)).await, "insufficient_funds").await;

    anvil.rpc("anvil_setCode", json!([MULTICALL3, "0x"])).await;
    let good = payment(&anvil, payee, &wallet, |signature| wallet.wrap(signature)).await;
    is_refused(&anvil, &us, &good, "invalid_exact_evm_payload_undeployed_smart_wallet").await;
}

/// What a victim has signed for `us` to settle, as anybody could have it settled who calls as we do.
async fn victims(anvil: &Anvil, us: Address) -> Vec<u8> {
    let terms = Terms { scheme: Scheme::Upto, ..forge::terms(forge::fresh_address(), PRICE) };
    let deadline = anvil.now().await + 199;
    anvil.approve_permit2(forge::address(FRIEND), U256::MAX).await;
    let signed =
        signing::sign(&forge::secret(FRIEND), &terms, AuthorizationKind::Upto { facilitator: us }, B256::repeat_byte(7), 0..deadline + 1);
    let permitted = TokenPermissions { token: USDC, amount: U256::from(PRICE) };
    let permit = PermitTransferFrom { permitted, nonce: signed.nonce.into(), deadline: U256::from(deadline) };
    let witness = UptoWitness { to: signed.to, facilitator: us, validAfter: U256::ZERO };
    let call = settleCall { permit, amount: U256::from(PRICE), owner: signed.from, witness, signature: signed.signature.into() };
    // From our address it goes through.
    let as_us = json!([{ "from": us, "to": UPTO_PROXY, "data": hex::encode_prefixed(call.abi_encode()) }, "latest"]);
    anvil.rpc("eth_call", as_us).await;
    call.abi_encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_a_factory_is_never_called_in_our_name() {
    let anvil = anvil().await;
    let (us, payee, wallet) = (in_process(&anvil, GAS), forge::fresh_address(), Wallet::new(&anvil, PRICE).await);
    let (ours, thief) = (us.address(), forge::fresh_address());
    let owned = anvil.balance(ours).await;
    assert!(owned >= U256::from(PRICE), "there is something to take");

    // Our own money, and what somebody else let only us settle.
    let take = transferCall { to: thief, value: U256::from(PRICE) }.abi_encode();
    let victims = victims(&anvil, ours).await;
    for (factory, calldata) in [(USDC, take), (UPTO_PROXY, victims)] {
        let payment = payment(&anvil, payee, &wallet, |signature| wrap(factory, &calldata, signature)).await;
        is_refused(&anvil, &us, &payment, "smart_wallet_deployment_failed").await;
    }
    // What deploys the wallet may do more, and is made: not as us.
    let calls = [(FACTORY, wallet.creation()), (USDC, approveCall { spender: thief, value: U256::MAX }.abi_encode())];
    let calls = calls.map(|(target, data)| Call3 { target, allowFailure: false, callData: data.into() }).to_vec();
    let batch = aggregate3Call { calls }.abi_encode();
    let payment = payment(&anvil, payee, &wallet, |signature| wrap(MULTICALL3, &batch, signature)).await;
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: wallet.address });
    assert_eq!(settled_by(&anvil, &us.settle(&payment).await, wallet.address).await, MULTICALL3);
    let left = async |owner| asked_of(&anvil, USDC, &allowanceCall { owner, spender: thief }).await;
    assert_eq!((left(ours).await, left(MULTICALL3).await), (U256::ZERO, U256::MAX));
    assert_eq!((anvil.balance(ours).await, anvil.balance(thief).await), (owned, U256::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_buys_before_it_is_deployed_and_after_whoever_settles() {
    let anvil = anvil().await;
    let upstream = Upstream::start().await;
    let (role, remote) = (Role::start(&anvil.url, KEYS[1], None), Remote::start(Maker::TypeScript, &anvil.url));
    for facilitator in [None, Some(role.url.as_str()), Some(remote.url.as_str())] {
        let (payee, wallet) = (forge::fresh_address(), Wallet::new(&anvil, 10 * PRICE).await);
        let mut stack = if facilitator.is_none() { Stack::settling(&anvil.url, GAS) } else { Stack::new() };
        stack.sell_by("weather", &upstream.url, payee, facilitator, &["eip3009"]);
        stack.up().await;
        stack.wait_for("/services/weather/x", 402).await;
        upstream.take_seen();

        // Somebody who is not the owner gets nothing.
        let forged = header(&anvil, payee, wallet.address, FRIEND, |signature| wallet.wrap(signature)).await;
        let answer = http().get(stack.url("/services/weather/x")).header("payment-signature", forged).send().await.expect("it answers");
        assert_eq!(answer.status(), 402);
        let challenge = answer.headers().get("payment-required").and_then(|value| value.to_str().ok()).map(forge::decode);
        let error = challenge.expect("a challenge")["error"].to_string();
        assert!(error.contains("invalid_exact_evm_"), "{error}");
        assert_eq!(anvil.code(wallet.address).await, json!("0x"));
        assert_eq!(upstream.take_seen().len(), 0);

        for paid in 1..=2 {
            let mut client = Command::new("node");
            client.arg(part("node/buyer-wallet.mjs")).arg(stack.url("/services/weather/x")).env("X402_KEY", OWNER);
            client.env("WALLET", wallet.address.to_checksum(None)).env("FACTORY", FACTORY.to_checksum(None));
            client.env("FACTORY_DATA", hex::encode_prefixed(wallet.creation()));
            let answer = tokio::task::spawn_blocking(move || buyers::run(&mut client)).await.expect("it ends");
            assert_eq!(answer.status, 200, "{facilitator:?}: {answer:?}");
            let receipt = answer.receipt.as_ref().unwrap_or_else(|| panic!("no receipt: {answer:?}"));
            assert!(receipt.success && anvil.succeeded(receipt.transaction).await, "{facilitator:?}: {answer:?}");
            assert_eq!(receipt.payer, Some(wallet.address));
            assert_eq!((anvil.balance(payee).await, upstream.take_seen().len()), (U256::from(paid * PRICE), 1));
            assert_ne!(anvil.code(wallet.address).await, json!("0x"));
        }
    }
}
