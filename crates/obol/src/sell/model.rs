//! What an inference offer has beside what every offer has.

use obol_offer::{Gate, ModelSpec, OfferKind, OfferSpec, RouteSpec};

use crate::args::SellInferenceArgs;

/// Lays the flags over an offer: only what is named changes.
pub fn lay(mut spec: OfferSpec, args: &SellInferenceArgs) -> OfferSpec {
    spec.kind = OfferKind::Inference;
    if spec.model.is_none() && args.offer.from_json.is_none() && spec.routes.is_empty() {
        // Which model is sold costs nothing to know, and no model is asked for it.
        spec.routes = vec![RouteSpec { path: "/v1/models/*".to_owned(), gate: Gate::Free, price: None }];
    }
    if args.model.is_some() || spec.model.is_some() {
        set_model(spec.model.get_or_insert_default(), args);
    }
    let per_token = args.per_mtok.is_some() || args.per_mtok_output.is_some();
    for payment in spec.payment.iter_mut().chain(&mut spec.payments) {
        let price = &mut payment.price;
        if per_token {
            price.per_request = None;
            set(&mut price.per_m_tok, &args.per_mtok);
            set(&mut price.per_m_tok_output, &args.per_mtok_output);
        } else if args.offer.price.is_some() {
            (price.per_m_tok, price.per_m_tok_output) = (None, None);
        }
    }
    spec
}

fn set_model(model: &mut ModelSpec, args: &SellInferenceArgs) {
    if let Some(name) = &args.model {
        model.name.clone_from(name);
    }
    set(&mut model.upstream_name, &args.upstream_model);
    set(&mut model.max_tokens, &args.max_tokens);
    set(&mut model.max_prompt_bytes, &args.max_prompt_bytes);
    set(&mut model.runtime, &args.runtime.map(Into::into));
    set(&mut model.concurrency, &args.concurrency);
    set(&mut model.queue, &args.queue);
    set(&mut model.first_token_timeout, &args.first_token_timeout);
    set(&mut model.token_timeout, &args.token_timeout);
    set(&mut model.credential, &args.credential);
    set(&mut model.when_uncounted, &args.when_uncounted.map(Into::into));
    model.pull = (model.pull || args.pull) && !args.no_pull;
}

fn set<T: Clone>(field: &mut Option<T>, given: &Option<T>) {
    if given.is_some() {
        field.clone_from(given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_offer::{PaymentSpec, PriceSpec, Runtime};

    fn args(change: impl FnOnce(&mut SellInferenceArgs)) -> SellInferenceArgs {
        let mut args = SellInferenceArgs::default();
        change(&mut args);
        args
    }

    #[test]
    fn a_new_offer_tells_its_model_for_nothing() {
        let spec = lay(OfferSpec::default(), &args(|a| a.model = Some("m".into())));
        assert_eq!((spec.kind, spec.model.as_ref().map(|m| m.name.as_str())), (OfferKind::Inference, Some("m")));
        assert_eq!((spec.routes[0].path.as_str(), spec.routes[0].gate), ("/v1/models/*", Gate::Free));
        let again = lay(OfferSpec { routes: Vec::new(), ..spec }, &args(|_| ()));
        assert!(again.routes.is_empty(), "what was removed by hand stays removed");
    }

    #[test]
    fn one_kind_of_price_replaces_the_other() {
        let price = PriceSpec { per_request: Some("1".into()), ..PriceSpec::default() };
        let spec = OfferSpec { payment: Some(PaymentSpec { price, ..PaymentSpec::default() }), ..OfferSpec::default() };
        let spec = lay(spec, &args(|a| (a.per_mtok, a.runtime) = (Some("0.2".into()), Some(crate::args::RuntimeArg::Vllm))));
        let price = &spec.payment.as_ref().unwrap().price;
        assert_eq!((price.per_request.as_deref(), price.per_m_tok.as_deref()), (None, Some("0.2")));
        assert_eq!(spec.model, None);
        let back = lay(spec, &args(|a| (a.offer.price, a.model) = (Some("1".into()), Some("m".into()))));
        assert_eq!(back.payment.unwrap().price.per_m_tok, None);
        let pulled = lay(OfferSpec { model: Some(ModelSpec::default()), ..OfferSpec::default() }, &args(|a| a.pull = true));
        let model = lay(pulled, &args(|a| (a.no_pull, a.runtime) = (true, Some(crate::args::RuntimeArg::Ollama)))).model.unwrap();
        assert_eq!((model.pull, model.runtime), (false, Some(Runtime::Ollama)));
    }
}
