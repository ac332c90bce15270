//! What facilitators say they support, fetched in the background and kept on disk beside the
//! journal. It orders preferences; no challenge and no payment ever waits for it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use obol_offer::{Address, Network, Scheme};
use obol_x402::{MatchedPayment, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Facilitator, http::HttpFacilitator, pool::Member};

const TIMEOUT: Duration = Duration::from_secs(10);
const AFTER_SUCCESS: Duration = Duration::from_secs(300);
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Most kinds kept of one facilitator.
const MAX_KINDS: usize = 200;

/// One facilitator's answer to `/supported`, as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kinds {
    kinds: Vec<Kind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    x402_version: u64,
    scheme: String,
    network: String,
    /// `extra.facilitatorAddress`: who settles, for `upto`.
    #[serde(default, rename = "extra", with = "extra", skip_serializing_if = "Option::is_none")]
    facilitator: Option<Address>,
}

/// `extra` of a kind, as far as it is used.
mod extra {
    use obol_offer::Address;
    use serde::{Deserialize, Deserializer, Serializer, ser::SerializeMap};

    const FACILITATOR: &str = "facilitatorAddress";

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
        let extra = serde_json::Value::deserialize(deserializer)?;
        let address = extra.get(FACILITATOR).and_then(|text| text.as_str()?.parse::<Address>().ok());
        Ok(address.filter(|address| *address != Address::ZERO))
    }

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(address: &Option<Address>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut extra = serializer.serialize_map(None)?;
        if let Some(address) = address {
            extra.serialize_entry(FACILITATOR, &address.to_string())?;
        }
        extra.end()
    }
}

impl Kind {
    /// An `eip155:*` stands for every EVM chain.
    fn is_on(&self, network: &Network) -> bool {
        self.network == network.name || self.network == network.caip2() || (self.network == "eip155:*" && !network.is_sandbox())
    }
}

impl Kinds {
    /// Reads an answer; entries that we do not understand are left out.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Answer {
            kinds: Vec<serde_json::Value>,
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let kinds = answer.kinds.into_iter().filter_map(|kind| serde_json::from_value(kind).ok());
        Ok(Self { kinds: kinds.filter(|kind: &Kind| kind.scheme.len() + kind.network.len() < 200).take(MAX_KINDS).collect() })
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether a payment is of a kind in the list.
    pub fn takes(&self, payment: &MatchedPayment) -> bool {
        let version = if payment.version == Version::V1 { 1 } else { 2 };
        let scheme = payment.terms.scheme.as_str();
        self.kinds.iter().any(|kind| kind.x402_version == version && kind.scheme == scheme && kind.is_on(payment.terms.network))
    }

    /// Who settles `upto` payments on a network.
    pub fn upto(&self, network: &Network) -> Option<Address> {
        let is_upto = |kind: &&Kind| kind.x402_version == 2 && kind.scheme == Scheme::Upto.as_str() && kind.is_on(network);
        self.kinds.iter().filter(is_upto).find_map(|kind| kind.facilitator)
    }
}

/// Fetches and keeps the answers.
pub(crate) struct Supported {
    file: PathBuf,
    known: Mutex<BTreeMap<String, Kinds>>,
    stop: CancellationToken,
    /// Moves when an answer differs from the one before.
    changed: watch::Sender<()>,
}

impl Supported {
    /// Reads what an earlier run kept; a missing or broken file is no loss.
    pub fn open(journal: &Path, stop: CancellationToken) -> Arc<Self> {
        let file = journal.with_extension("supported.json");
        let known = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Arc::new(Self { file, known: Mutex::new(known), stop, changed: watch::Sender::new(()) })
    }

    /// Moves when some facilitator is new, or says something else than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Gives a facilitator its last known answer, and asks it again and again in the background.
    pub fn watch(self: &Arc<Self>, member: &Arc<Member>, http: Arc<HttpFacilitator>) {
        let last = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(http.id()).cloned();
        *member.kinds.lock().unwrap_or_else(PoisonError::into_inner) = last;
        self.changed.send_replace(());
        let (this, member) = (Arc::clone(self), Arc::downgrade(member));
        tokio::spawn(async move {
            let stop = this.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = this.poll(&member, &http) => {}
            }
        });
    }

    async fn poll(&self, member: &Weak<Member>, http: &HttpFacilitator) {
        loop {
            let answer = tokio::time::timeout(TIMEOUT, http.supported()).await.unwrap_or_else(|_| Err("timed out".to_owned()));
            let Some(member) = member.upgrade() else { return };
            let wait = match answer.and_then(|body| Kinds::parse(&body)) {
                Ok(kinds) => {
                    let before = member.kinds.lock().unwrap_or_else(PoisonError::into_inner).replace(kinds.clone());
                    if before.as_ref() != Some(&kinds) {
                        self.changed.send_replace(());
                    }
                    self.keep(http.id(), kinds).await;
                    AFTER_SUCCESS
                }
                Err(cause) => {
                    tracing::debug!(facilitator = http.id(), cause, "no answer to supported");
                    AFTER_FAILURE
                }
            };
            drop(member);
            tokio::time::sleep(wait).await;
        }
    }

    /// Keeps an answer for the next run. A failure costs nothing but that.
    async fn keep(&self, id: &str, kinds: Kinds) {
        let text = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.insert(id.to_owned(), kinds.clone()) == Some(kinds) {
                return;
            }
            serde_json::to_vec(&*known)
        };
        let (Ok(text), file) = (text, self.file.clone()) else { return };
        let written = tokio::task::spawn_blocking(move || {
            let fresh = file.with_extension("json.new");
            std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &file))
        });
        if let Ok(Err(error)) = written.await {
            tracing::debug!(%error, "what facilitators support was not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_payment::payment;

    #[test]
    fn kinds_are_matched_by_version_scheme_and_any_name_of_the_network() {
        let takes = |json: &str| Kinds::parse(json.as_bytes()).unwrap().takes(&payment(1));
        for network in ["eip155:84532", "base-sepolia", "eip155:*"] {
            assert!(takes(&format!(r#"{{"kinds":[7,{{"x402Version":2,"scheme":"exact","network":"{network}"}}]}}"#)), "{network}");
        }
        assert!(!takes(r#"{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"}]}"#));
        assert!(!takes(r#"{"kinds":[{"x402Version":2,"scheme":"upto","network":"base-sepolia"}]}"#));
        assert!(!takes(r#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:8453","extra":7}]}"#));
        assert!(!takes(r#"{"kinds":[]}"#));
        assert!(Kinds::parse(b"[]").is_err());
    }

    #[test]
    fn who_settles_upto_is_read_and_kept() {
        let address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let upto = |extra: &str| format!(r#"{{"kinds":[{{"x402Version":2,"scheme":"upto","network":"eip155:84532","extra":{extra}}}]}}"#);
        let network = |name| Network::find(name).unwrap();
        let kinds = Kinds::parse(upto(&format!(r#"{{"facilitatorAddress":"{address}","more":[1]}}"#)).as_bytes()).unwrap();
        assert_eq!(kinds.upto(network("base-sepolia")), Some(address.parse().unwrap()));
        assert_eq!(kinds.upto(network("base")), None);
        let kept: Kinds = serde_json::from_slice(&serde_json::to_vec(&kinds).unwrap()).unwrap();
        assert_eq!(kept, kinds);
        for none in
            ["null", "7", "{}", r#"{"facilitatorAddress":"x"}"#, r#"{"facilitatorAddress":"0x0000000000000000000000000000000000000000"}"#]
        {
            assert_eq!(Kinds::parse(upto(none).as_bytes()).unwrap().upto(network("base-sepolia")), None, "{none}");
        }
    }
}
