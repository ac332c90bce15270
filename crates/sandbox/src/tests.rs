use std::borrow::Cow;

use alloy_primitives::{Bytes, U256, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};
use obol_offer::{Scheme, Terms};
use obol_settle::{ChainFinding, Receipt, SettleOutcome, VerifyOutcome};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version, eip3009};
use secp256k1::{Message, Secp256k1, SecretKey};

use super::*;
use crate::token::TestUsd::transferWithAuthorization_1Call as TransferByVrs;

sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
    struct CancelAuthorization { address authorizer; bytes32 nonce; }
    struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }

    function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature) external;
    function receiveWithAuthorization(
        address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
    ) external;
    function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
    function allowance(address owner, address spender) external view returns (uint256);
    function initialize(string name, string version, string symbol) external;
}

const PAYEE: Address = Address::repeat_byte(0x5e);
const PRICE: u64 = 1_000;

fn key() -> SecretKey {
    SecretKey::from_byte_array([0x42; 32]).unwrap()
}

fn payer() -> Address {
    Address::from_raw_public_key(&key().public_key(&Secp256k1::new()).serialize_uncompressed()[1..])
}

fn domain() -> Eip712Domain {
    let network = Network::find(SANDBOX).unwrap();
    let asset = network.default_asset();
    Eip712Domain {
        name: Some(Cow::Owned(asset.domain_name)),
        version: Some(Cow::Owned(asset.domain_version)),
        chain_id: Some(U256::from(network.chain_id)),
        verifying_contract: Some(asset.address),
        salt: None,
    }
}

fn sign_digest(digest: B256) -> Vec<u8> {
    let (recovery, compact) = Secp256k1::new().sign_ecdsa_recoverable(Message::from_digest(digest.0), &key()).serialize_compact();
    [&compact[..], &[27 + u8::try_from(i32::from(recovery)).unwrap()]].concat()
}

fn sign(authorization: &mut Authorization, domain: &Eip712Domain) {
    let message = TransferWithAuthorization {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value.0,
        validAfter: U256::from(authorization.valid_after),
        validBefore: U256::from(authorization.valid_before),
        nonce: authorization.nonce,
    };
    authorization.signature = sign_digest(message.eip712_signing_hash(domain));
}

/// A good payment with nonce `n`, changed by `change` before it is signed.
fn payment_with(n: u8, domain: &Eip712Domain, change: impl FnOnce(&mut MatchedPayment)) -> MatchedPayment {
    let network = Network::find(SANDBOX).unwrap();
    let terms = Terms {
        scheme: Scheme::Exact,
        network,
        asset: network.default_asset(),
        pay_to: PAYEE,
        amount: Amount::from(PRICE),
        max_timeout_seconds: 300,
    };
    let authorization = Authorization {
        from: payer(),
        to: terms.pay_to,
        value: terms.amount,
        valid_after: 0,
        valid_before: unix_now() + 300,
        nonce: B256::repeat_byte(n),
        kind: AuthorizationKind::Eip3009,
        signature: Vec::new(),
    };
    let mut payment = MatchedPayment {
        version: Version::V2,
        terms,
        authorization,
        local_check: LocalCheck::SignedByPayer,
        charge: Amount::from(PRICE),
        payload_digest: [0; 32],
        facilitator_body: Vec::new(),
    };
    change(&mut payment);
    sign(&mut payment.authorization, domain);
    payment
}

fn payment(n: u8) -> MatchedPayment {
    payment_with(n, &domain(), |_| ())
}

/// A sandbox whose payer can pay `payments` times.
fn funded(payments: u64) -> Arc<Sandbox> {
    let sandbox = Sandbox::new().unwrap();
    sandbox.mint(payer(), Amount::from(PRICE * payments)).unwrap();
    sandbox
}

fn balances(sandbox: &Sandbox) -> (Amount, Amount) {
    (sandbox.balance_of(payer()).unwrap(), sandbox.balance_of(PAYEE).unwrap())
}

async fn settled(sandbox: &Arc<Sandbox>, payment: &MatchedPayment) -> Receipt {
    match sandbox.facilitator().settle(payment).await {
        SettleOutcome::Settled(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

/// Neither verified nor settled, for this reason, and nothing moves.
async fn assert_refused(sandbox: &Arc<Sandbox>, payment: &MatchedPayment, reason: &str) {
    let before = balances(sandbox);
    let facilitator = sandbox.facilitator();
    assert_eq!(facilitator.verify(payment).await, VerifyOutcome::Invalid { reason: reason.to_owned() });
    assert_eq!(facilitator.settle(payment).await, SettleOutcome::Refused { reason: reason.to_owned() });
    assert_eq!(balances(sandbox), before);
}

#[tokio::test]
async fn a_good_payment_moves_exactly_the_price_once() {
    let sandbox = funded(2);
    let payment = payment(1);
    assert_eq!(sandbox.facilitator().verify(&payment).await, VerifyOutcome::Valid { payer: payer() });
    assert_eq!(balances(&sandbox), (Amount::from(2 * PRICE), Amount::ZERO), "verify moves nothing");
    assert!(!sandbox.authorization_used(payer(), payment.authorization.nonce).unwrap());

    let receipt = settled(&sandbox, &payment).await;
    assert_eq!((receipt.payer, receipt.amount), (payer(), Amount::from(PRICE)));
    assert_eq!(balances(&sandbox), (Amount::from(PRICE), Amount::from(PRICE)));
    assert!(sandbox.authorization_used(payer(), payment.authorization.nonce).unwrap());

    assert_refused(&sandbox, &payment, "invalid_exact_evm_nonce_already_used").await;
}

#[tokio::test]
async fn the_receipts_hash_is_that_of_a_transaction_on_the_chain() {
    let sandbox = funded(1);
    let receipt = settled(&sandbox, &payment(1)).await;
    let hash: B256 = receipt.transaction.parse().unwrap();
    let transaction = sandbox.transaction(hash).unwrap();
    assert_eq!(keccak256(&transaction.raw), hash);
    assert_eq!(transaction.block, 3, "after the token's first block and the minting");
    assert_eq!(transaction.logs.len(), 2, "AuthorizationUsed and Transfer");
    assert_eq!(sandbox.transaction(B256::ZERO), None);
}

#[tokio::test]
async fn a_signature_for_another_domain_is_void() {
    let sandbox = funded(1);
    let others = [
        Eip712Domain { name: Some("USDC".into()), ..domain() },
        Eip712Domain { version: Some("1".into()), ..domain() },
        Eip712Domain { chain_id: Some(U256::from(84532)), ..domain() },
        Eip712Domain { verifying_contract: Some(PAYEE), ..domain() },
    ];
    for other in others {
        assert_refused(&sandbox, &payment_with(1, &other, |_| ()), "invalid_exact_evm_payload_signature").await;
    }
}

#[tokio::test]
async fn the_validity_window_is_enforced() {
    let sandbox = funded(1);
    let expired = payment_with(1, &domain(), |p| p.authorization.valid_before = unix_now() - 1);
    assert_refused(&sandbox, &expired, "invalid_exact_evm_payload_authorization_valid_before").await;
    let early = payment_with(1, &domain(), |p| p.authorization.valid_after = unix_now() + 60);
    assert_refused(&sandbox, &early, "invalid_exact_evm_payload_authorization_valid_after").await;
}

#[tokio::test]
async fn nobody_spends_more_than_he_has() {
    let sandbox = Sandbox::new().unwrap();
    sandbox.mint(payer(), Amount::from(PRICE - 1)).unwrap();
    assert_refused(&sandbox, &payment(1), "insufficient_funds").await;
    assert!(!sandbox.authorization_used(payer(), B256::repeat_byte(1)).unwrap());
}

#[tokio::test]
async fn what_was_changed_after_signing_is_void() {
    let sandbox = funded(9);
    let signature = "invalid_exact_evm_payload_signature";
    let tampered = |change: fn(&mut MatchedPayment)| {
        let mut payment = payment(1);
        change(&mut payment);
        payment
    };
    let value = tampered(|p| (p.authorization.value, p.terms.amount) = (Amount::from(1), Amount::from(1)));
    let payee = tampered(|p| (p.authorization.to, p.terms.pay_to) = (Address::repeat_byte(1), Address::repeat_byte(1)));
    let nonce = tampered(|p| p.authorization.nonce = B256::repeat_byte(2));
    let payer = tampered(|p| p.authorization.from = Address::repeat_byte(3));
    let short = tampered(|p| p.authorization.signature.truncate(64));
    let empty = tampered(|p| p.authorization.signature.clear());
    let v = tampered(|p| p.authorization.signature[64] -= 27);
    for payment in [value, payee, nonce, payer, short, empty, v] {
        assert_refused(&sandbox, &payment, signature).await;
    }
}

#[tokio::test]
async fn the_twin_of_a_signature_is_refused() {
    let sandbox = funded(1);
    let mut payment = payment(1);
    let order = U256::from_str_radix("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141", 16).unwrap();
    let signature = &mut payment.authorization.signature;
    let high_s = order - U256::from_be_slice(&signature[32..64]);
    signature[32..64].copy_from_slice(&high_s.to_be_bytes::<32>());
    signature[64] = 27 + 28 - signature[64];
    assert_refused(&sandbox, &payment, "invalid_exact_evm_payload_signature").await;
}

#[tokio::test]
async fn the_terms_are_looked_at_again() {
    let sandbox = funded(9);
    let refused = |change: fn(&mut MatchedPayment)| payment_with(1, &domain(), change);
    let cases = [
        (refused(|p| p.terms.network = Network::find("base").unwrap()), "invalid_network"),
        (refused(|p| p.terms.asset.address = PAYEE), "asset_mismatch"),
        (refused(|p| p.authorization.to = Address::repeat_byte(1)), "invalid_exact_evm_payload_recipient_mismatch"),
        (refused(|p| p.authorization.value = Amount::from(PRICE - 1)), "invalid_exact_evm_payload_authorization_value_mismatch"),
        (refused(|p| p.authorization.value = Amount::from(PRICE + 1)), "invalid_exact_evm_payload_authorization_value_mismatch"),
    ];
    for (payment, reason) in cases {
        assert_refused(&sandbox, &payment, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_settlements_of_one_payment_move_money_once() {
    let sandbox = funded(9);
    let tasks = (0..8).map(|_| {
        let facilitator = sandbox.facilitator();
        tokio::spawn(async move { facilitator.settle(&payment(1)).await })
    });
    let mut settlements = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            SettleOutcome::Settled(_) => settlements += 1,
            SettleOutcome::Refused { reason } => assert_eq!(reason, "invalid_exact_evm_nonce_already_used"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((settlements, sandbox.balance_of(PAYEE).unwrap()), (1, Amount::from(PRICE)));
}

#[test]
fn the_other_overload_takes_the_same_signature() {
    let sandbox = funded(2);
    let signed = payment(1).authorization;
    let call = TransferByVrs {
        from: signed.from,
        to: signed.to,
        value: signed.value.0,
        validAfter: U256::from(signed.valid_after),
        validBefore: U256::from(signed.valid_before),
        nonce: signed.nonce,
        v: signed.signature[64],
        r: B256::from_slice(&signed.signature[..32]),
        s: B256::from_slice(&signed.signature[32..64]),
    };
    sandbox.send(&call).unwrap();
    assert_eq!(balances(&sandbox), (Amount::from(PRICE), Amount::from(PRICE)));
    let used = SandboxError::Reverted { reason: "FiatTokenV2: authorization is used or canceled".to_owned() };
    assert_eq!(sandbox.send(&call).unwrap_err(), used);
}

#[tokio::test]
async fn recovery_sees_on_the_chain_what_became_of_a_payment() {
    let sandbox = funded(2);
    let (paid, open) = (payment(1), payment(2));
    let look = async |payment: &MatchedPayment| sandbox.view().look(payment, 0, None).await;
    let transaction = settled(&sandbox, &paid).await.transaction;
    assert_eq!(look(&paid).await, ChainFinding::Settled { transaction, amount: Amount::from(PRICE), is_final: true });
    assert!(matches!(look(&open).await, ChainFinding::Unused { is_final: false, .. }));
    let late = payment_with(3, &domain(), |payment| payment.authorization.valid_before = unix_now() - 1);
    assert!(matches!(look(&late).await, ChainFinding::Unused { is_final: true, .. }));
    let mut stolen = paid.clone();
    stolen.authorization.to = payer();
    assert_eq!(look(&stolen).await, ChainFinding::UsedElsewhere { is_final: true });
    stolen.terms.network = Network::find("base").unwrap();
    assert!(matches!(look(&stolen).await, ChainFinding::Unavailable { .. }));
}

#[tokio::test]
async fn a_smart_wallet_answers_for_itself() {
    let sandbox = Sandbox::new().unwrap();
    let wallet = Address::repeat_byte(0xaa);
    // Returns the 32-byte word of the ERC-1271 magic value, or of nothing, whatever it is asked.
    let code = |magic: [u8; 4]| Bytes::from([&[0x7f], &magic[..], &[0; 28], &[0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]].concat());
    sandbox.mint(wallet, Amount::from(PRICE)).unwrap();
    let mut payment = payment_with(1, &domain(), |p| p.authorization.from = wallet);
    payment.authorization.signature = vec![1, 2, 3];

    sandbox.state().chain.etch(wallet, code([0; 4]));
    assert_refused(&sandbox, &payment, "invalid_exact_evm_payload_signature").await;
    sandbox.state().chain.etch(wallet, code([0x16, 0x26, 0xba, 0x7e]));
    assert_eq!(settled(&sandbox, &payment).await.payer, wallet);
}

#[tokio::test]
async fn a_canceled_authorization_is_void() {
    let sandbox = funded(1);
    let nonce = B256::repeat_byte(1);
    let signature = sign_digest(CancelAuthorization { authorizer: payer(), nonce }.eip712_signing_hash(&domain()));
    sandbox.send(&cancelAuthorizationCall { authorizer: payer(), nonce, signature: signature.into() }).unwrap();
    assert_refused(&sandbox, &payment(1), "invalid_exact_evm_nonce_already_used").await;
}

#[test]
fn only_the_payee_can_receive() {
    let sandbox = funded(1);
    let signed = payment(1).authorization;
    let call = receiveWithAuthorizationCall {
        from: signed.from,
        to: signed.to,
        value: signed.value.0,
        validAfter: U256::from(signed.valid_after),
        validBefore: U256::from(signed.valid_before),
        nonce: signed.nonce,
        signature: signed.signature.into(),
    };
    let error = sandbox.send(&call).unwrap_err();
    assert_eq!(error, SandboxError::Reverted { reason: "FiatTokenV2: caller must be the payee".to_owned() });
}

#[test]
fn a_permit_gives_an_allowance_once() {
    let sandbox = Sandbox::new().unwrap();
    let (owner, spender, value, deadline) = (payer(), PAYEE, U256::from(5), U256::from(unix_now() + 60));
    let signature = sign_digest(Permit { owner, spender, value, nonce: U256::ZERO, deadline }.eip712_signing_hash(&domain()));
    let (r, s, v) = (B256::from_slice(&signature[..32]), B256::from_slice(&signature[32..64]), signature[64]);
    let call = permitCall { owner, spender, value, deadline, v, r, s };
    sandbox.send(&call).unwrap();
    assert_eq!(sandbox.call(&allowanceCall { owner, spender }).unwrap(), value);
    assert_eq!(sandbox.send(&call).unwrap_err(), SandboxError::Reverted { reason: "EIP2612: invalid signature".to_owned() });
}

#[test]
fn the_token_is_named_once() {
    let again = initializeCall { name: "USDC".into(), version: "2".into(), symbol: "USDC".into() };
    let error = Sandbox::new().unwrap().send(&again).unwrap_err();
    assert_eq!(error, SandboxError::Reverted { reason: "TestUsd: already initialized".to_owned() });
}

#[test]
fn transactions_are_signed_by_the_relayer() {
    let sandbox = funded(1);
    let hash = sandbox.mint(PAYEE, Amount::from(1)).unwrap();
    let transaction = sandbox.transaction(hash).unwrap();
    assert_eq!(transaction::recover_sender(&transaction.raw), Some(transaction.from));
}

#[test]
fn absurd_amounts_are_refused_and_not_wrapped() {
    let sandbox = Sandbox::new().unwrap();
    sandbox.mint(payer(), Amount(U256::MAX)).unwrap();
    assert!(matches!(sandbox.mint(PAYEE, Amount::from(1)), Err(SandboxError::Reverted { .. })));
    assert!(matches!(sandbox.mint(Address::ZERO, Amount::from(1)), Err(SandboxError::Reverted { .. })));
    assert_eq!(balances(&sandbox), (Amount(U256::MAX), Amount::ZERO));
}

#[tokio::test]
async fn a_restart_forgets_no_payment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.jsonl");
    let (receipt, before) = {
        let sandbox = Sandbox::open(&file).unwrap();
        sandbox.mint(payer(), Amount::from(3 * PRICE)).unwrap();
        (settled(&sandbox, &payment(1)).await, balances(&sandbox))
    };
    // A crash in the middle of the next line.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{{\"hash\":\"0x12")).unwrap();

    let sandbox = Sandbox::open(&file).unwrap();
    assert_eq!(balances(&sandbox), before);
    assert!(sandbox.transaction(receipt.transaction.parse().unwrap()).is_some());
    assert_refused(&sandbox, &payment(1), "invalid_exact_evm_nonce_already_used").await;
    settled(&sandbox, &payment(2)).await;
    drop(sandbox);
    assert_eq!(Sandbox::open(&file).unwrap().balance_of(PAYEE).unwrap(), Amount::from(2 * PRICE));
}

#[test]
fn a_damaged_file_is_reported_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.jsonl");
    let sandbox = Sandbox::open(&file).unwrap();
    sandbox.mint(payer(), Amount::from(1)).unwrap();
    sandbox.mint(payer(), Amount::from(2)).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    for damaged in [format!("{first}\nnonsense\n"), format!("{first}\n{first}\n"), format!("{second}{first}\n"), "\u{fffd}\n".to_owned()] {
        std::fs::write(&file, &damaged).unwrap();
        let error = Sandbox::open(&file).err().unwrap();
        assert_eq!(error.code(), "sandbox_corrupt", "{damaged}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged, "it is left as it was");
    }
}

#[tokio::test]
async fn buyers_and_gateways_sign_and_hash_what_the_token_does() {
    let sandbox = funded(1);
    let mut payment = payment(1);
    let signed = &payment.authorization;
    let message = TransferWithAuthorization {
        from: signed.from,
        to: signed.to,
        value: signed.value.0,
        validAfter: U256::from(signed.valid_after),
        validBefore: U256::from(signed.valid_before),
        nonce: signed.nonce,
    };
    assert_eq!(eip3009::digest(&payment.terms, signed), message.eip712_signing_hash(&domain()));
    assert_eq!(eip3009::address_of(&key()), payer());
    assert_eq!(eip3009::recover(&payment.terms, signed), Some(payer()));

    payment.authorization = eip3009::sign(&key(), &payment.terms, signed.nonce, 0, signed.valid_before);
    settled(&sandbox, &payment).await;
}
