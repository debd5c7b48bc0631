//! What C holds for a model: a number that is never used twice, so that what is destroyed or was never
//! made is found out.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use session_group::{Error, Result};

use crate::model::Model;

type Models = HashMap<usize, Arc<Model>>;

static MODELS: LazyLock<ArcSwap<Models>> = LazyLock::new(ArcSwap::default);

/// Keeps all models while one is used.
pub struct Held(Guard<Arc<Models>>);

/// Makes a handle.
pub fn add(model: Model) -> *mut c_void {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // SAFETY: the function stays as long as the process, since the library is never unloaded. It is
        // registered after the destructors of TensorFlow's libraries, and so runs before them.
        unsafe { libc::atexit(end_updates) };
    });
    static LAST: AtomicUsize = AtomicUsize::new(0);
    // Like a pointer to something that is aligned; NULL is none.
    let handle = (LAST.fetch_add(1, Relaxed) + 1) * 16;
    let model = Arc::new(model);
    MODELS.rcu(|models| {
        let mut models = Models::clone(models);
        models.insert(handle, model.clone());
        models
    });
    std::ptr::without_provenance_mut(handle)
}

/// When the process ends by exit(): TensorFlow's destructors take away what an update uses.
extern "C" fn end_updates() {
    MODELS.load().values().for_each(|model| model.end_updates());
}

/// Lets no model go until the result is dropped.
pub fn hold() -> Held {
    Held(MODELS.load())
}

impl Held {
    pub fn model(&self, handle: *mut c_void) -> Result<&Model> {
        let model = self.0.get(&handle.addr());
        model.map(Arc::as_ref).ok_or_else(|| {
            Error::invalid(match handle.is_null() {
                true => "model_buf is NULL: pass what initialize() returned".to_string(),
                false => format!(
                    "model_buf is {handle:?}, which is no model, or one that destroy() has ended"
                ),
            })
        })
    }
}

/// Ends a model, once no request uses it.
pub fn remove(handle: *mut c_void) {
    let mut removed = None;
    MODELS.rcu(|models| {
        let mut models = Models::clone(models);
        removed = models.remove(&handle.addr());
        models
    });
    let Some(mut model) = removed else { return };
    loop {
        match Arc::try_unwrap(model) {
            Ok(model) => return drop(model),
            Err(used) => model = used,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
