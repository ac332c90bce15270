//! A copy of what an API server has, kept up by a watch.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::TryStreamExt as _;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::{Id, object::id};

/// Objects by namespace and name.
pub type Objects<K> = BTreeMap<Id, Arc<K>>;

/// Every object of one kind. Once it has been full it stays: an API server that is away changes nothing.
pub struct Mirror<K> {
    contents: Arc<Mutex<Contents<K>>>,
    _watch: AbortOnDropHandle<()>,
}

struct Contents<K> {
    /// `None` before the first full list.
    objects: Option<Arc<Objects<K>>>,
    /// Why the watch does not work at the moment.
    trouble: Option<String>,
}

impl<K: Resource<DynamicType: Default> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Mirror<K> {
    /// Watches what `api` and `config` select, and tells `changed` of every change.
    pub fn start(api: Api<K>, config: watcher::Config, changed: Arc<Notify>) -> Self {
        Self::start_dynamic(api, config, changed)
    }
}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Mirror<K> {
    /// As [`start`](Self::start), for kinds known at run time only.
    pub fn start_dynamic(api: Api<K>, config: watcher::Config, changed: Arc<Notify>) -> Self {
        let contents = Arc::new(Mutex::new(Contents { objects: None, trouble: None }));
        let kept = contents.clone();
        let watch = async move {
            let events = watcher(api, config).default_backoff();
            let mut events = std::pin::pin!(events);
            let mut fresh = Objects::new();
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => {
                        if kept_lock(&kept).take(event, &mut fresh) {
                            changed.notify_one();
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        let trouble = innermost(&error);
                        let mut contents = kept_lock(&kept);
                        if contents.trouble.as_deref() != Some(&trouble) {
                            tracing::warn!(kind = std::any::type_name::<K>(), error = trouble, "watch");
                            contents.trouble = Some(trouble);
                            changed.notify_one();
                        }
                    }
                }
            }
        };
        Self { contents, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }

    /// Everything; `None` before the first full list.
    pub fn objects(&self) -> Option<Arc<Objects<K>>> {
        kept_lock(&self.contents).objects.clone()
    }

    /// Why the watch does not work at the moment.
    pub fn trouble(&self) -> Option<String> {
        kept_lock(&self.contents).trouble.clone()
    }

    /// Takes an object as the API server answered a write, before the watch tells of it.
    pub fn put(&self, object: K) {
        kept_lock(&self.contents).keep(Arc::new(object));
    }

    /// Forgets an object that was deleted, before the watch tells of it.
    pub fn forget(&self, id: &Id) {
        if let Some(objects) = &mut kept_lock(&self.contents).objects {
            Arc::make_mut(objects).remove(id);
        }
    }
}

fn kept_lock<K>(contents: &Mutex<Contents<K>>) -> MutexGuard<'_, Contents<K>> {
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Resource + Clone> Contents<K> {
    /// Takes an event; says whether somebody should look.
    fn take(&mut self, event: Event<K>, fresh: &mut Objects<K>) -> bool {
        match event {
            Event::Init => fresh.clear(),
            Event::InitApply(object) => drop(fresh.insert(id(&object), Arc::new(object))),
            Event::InitDone => {
                self.objects = Some(Arc::new(std::mem::take(fresh)));
                self.trouble = None;
                return true;
            }
            Event::Apply(object) => {
                self.trouble = None;
                return self.keep(Arc::new(object));
            }
            Event::Delete(object) => {
                if let Some(objects) = &mut self.objects {
                    Arc::make_mut(objects).remove(&id(&object));
                    return true;
                }
            }
        }
        false
    }

    /// Keeps an object unless a newer version of it is known.
    fn keep(&mut self, object: Arc<K>) -> bool {
        let Some(objects) = &mut self.objects else { return false };
        let id = id(object.as_ref());
        let older = |known: &Arc<K>| {
            known.meta().uid == object.meta().uid
                && matches!((version(object.as_ref()), version(known.as_ref())), (Some(new), Some(known)) if new < known)
        };
        if objects.get(&id).is_some_and(older) {
            return false;
        }
        Arc::make_mut(objects).insert(id, object);
        true
    }
}

/// Resource versions of one kind are ordered numbers (KEP-5504; so they were before it, in etcd).
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

/// The innermost cause: what the API server or the system said.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(300).collect()
}
