//! The Kubernetes loop round the reconcile core: `ServiceOffer`s in, routes and conditions out.
