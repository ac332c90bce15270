//! A shop with a metered price: an upstream that the test plays, and a buyer that reads the challenge.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use obol_gateway::{GatewayConfig, Inference, InferencePlace};
use obol_offer::{ModelSpec, OfferKind, OfferSpec, PriceSpec};
use obol_reconcile::{Entry, RouteTable};
use obol_x402::{Offered, Received, signing};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};

use super::{Got, HOST_PATH, Shop, key, nonce, now, offer};

/// What the upstream says next.
pub enum Say {
    Data(&'static str),
    /// The usage report and the end.
    Trailer(&'static str),
    /// More than one field, and others.
    Trailers(Vec<(&'static str, &'static str)>),
    Break,
}

/// One answer of the upstream, as the test plays it.
pub struct Scene {
    pub headers: Vec<(&'static str, &'static str)>,
    pub says: mpsc::UnboundedReceiver<Say>,
}

/// Gives the upstream its next answer; what is sent is said.
pub struct Stage(mpsc::UnboundedSender<Scene>);

impl Stage {
    pub fn play(&self, headers: &[(&'static str, &'static str)]) -> mpsc::UnboundedSender<Say> {
        let (say, says) = mpsc::unbounded_channel();
        self.0.send(Scene { headers: headers.to_vec(), says }).ok().unwrap();
        say
    }

    /// A whole stream of events with its report.
    pub fn stream(&self, events: &[&'static str], report: &'static str) {
        let say = self.play(&SSE);
        events.iter().for_each(|event| say.send(Say::Data(event)).ok().unwrap());
        say.send(Say::Trailer(report)).ok().unwrap();
    }
}

pub const SSE: [(&str, &str); 2] = [("content-type", "text/event-stream"), ("trailer", "x-obol-usage")];

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

async fn answer(scenes: Arc<Mutex<mpsc::UnboundedReceiver<Scene>>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let _ = request.into_body().collect().await;
    let scene = scenes.lock().await.recv().await.unwrap();
    let mut answer = Response::builder();
    for (name, value) in &scene.headers {
        answer = answer.header(*name, *value);
    }
    let frames = futures_util::stream::unfold(scene.says, |mut says| async move {
        let said = says.recv().await?;
        let frame = match said {
            Say::Data(data) => Ok(Frame::data(Bytes::from(data))),
            Say::Trailer(report) => Ok(trailers(&[("x-obol-usage", report)])),
            Say::Trailers(fields) => Ok(trailers(&fields)),
            Say::Break => Err(std::io::Error::other("broken")),
        };
        Some((frame, says))
    });
    Ok(answer.body(BodyExt::boxed_unsync(StreamBody::new(frames.boxed()))).unwrap())
}

fn trailers(fields: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    fields.iter().for_each(|(name, value)| _ = trailers.append(*name, HeaderValue::from_static(value)));
    Frame::trailers(trailers)
}

/// One atomic unit for a prompt token, two for a completion token; at most 1000 and 100.
pub fn per_token(spec: &mut OfferSpec) {
    spec.kind = OfferKind::Inference;
    spec.model = Some(ModelSpec { name: "m".into(), max_tokens: Some(100), max_prompt_bytes: Some(1000), ..ModelSpec::default() });
    price(spec, PriceSpec { per_m_tok: Some("1".into()), per_m_tok_output: Some("2".into()), ..PriceSpec::default() });
}

/// 25 atomic units for a page, at most 40.
pub fn per_unit(spec: &mut OfferSpec) {
    let unit = Some("page".into());
    price(spec, PriceSpec { per_unit: Some("0.000025".into()), unit, max_units: Some(40), ..PriceSpec::default() });
}

fn price(spec: &mut OfferSpec, price: PriceSpec) {
    spec.payment.as_mut().unwrap().price = price;
}

impl Shop {
    pub async fn metered(change: impl FnOnce(&mut OfferSpec)) -> (Self, Stage) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (scene, scenes) = mpsc::unbounded_channel();
        let scenes = Arc::new(Mutex::new(scenes));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let scenes = scenes.clone();
                let service = service_fn(move |request| answer(scenes.clone(), request));
                tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
            }
        });
        let mut spec = super::spec(port);
        change(&mut spec);
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let inference = Inference { place: InferencePlace::At(addr), secret: "gate".into() };
        let shop =
            Self::empty(GatewayConfig { inference: Some(inference), ..GatewayConfig::default() }, super::Upstream::start().await).await;
        let directory = shop.cashier.upto_directory();
        let mut builder = RouteTable::builder();
        for entry in Entry::of_offer(&offer("a", &spec), &directory) {
            builder.insert(entry);
        }
        shop.table.store(Some(Arc::new(builder.build())));
        (shop, Stage(scene))
    }

    /// What a request is asked for, in the order of the challenge.
    pub async fn offered(&self, body: &'static str) -> Vec<Offered> {
        let got = self.send(self.request("POST", HOST_PATH), body).await;
        assert_eq!(got.status, 402, "{}", got.text());
        Received::parse(Some(got.header("payment-required").as_bytes()), b"").unwrap().offers
    }

    /// A payment for this request, in a scheme.
    pub async fn metered_payment(&self, scheme: &str, body: &'static str) -> String {
        let offered = self.offered(body).await.into_iter().find(|offered| offered.scheme == scheme).unwrap();
        self.sign(&offered, now() + 300)
    }

    pub fn sign(&self, offered: &Offered, until: u64) -> String {
        let terms = offered.terms().unwrap();
        let signed = signing::sign(&key(), &terms, offered.kind(&terms).unwrap(), nonce(), 0..until);
        offered.payment(&signed).1
    }

    pub async fn buy(&self, payment: &str, body: &'static str, headers: &[(&'static str, &'static str)]) -> Got {
        let mut request = self.request("POST", HOST_PATH).header("payment-signature", payment);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body).await
    }

    /// The amounts that were settled, in order.
    pub fn charges(&self) -> Vec<u64> {
        self.facilitator.charges.lock().unwrap().clone()
    }
}
