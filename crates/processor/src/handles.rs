//! What C holds for a model: a number that is never used twice, so that what is destroyed or was never
//! made is found out.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Once};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use session_group::{Error, Result};
use tracing::warn;

use crate::model::Model;

/// Slots stay with who looks at them, models don't.
type Models = HashMap<usize, Arc<ArcSwapOption<Model>>>;

static MODELS: LazyLock<ArcSwap<Models>> = LazyLock::new(ArcSwap::default);

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
    let slot = Arc::new(ArcSwapOption::from_pointee(model));
    MODELS.rcu(|models| {
        let mut models = Models::clone(models);
        models.insert(handle, slot.clone());
        models
    });
    std::ptr::without_provenance_mut(handle)
}

/// When the process ends by exit(): TensorFlow's destructors take away what an update uses.
extern "C" fn end_updates() {
    let models = MODELS.load();
    models.values().for_each(|slot| slot.load().iter().for_each(|model| model.end_updates()));
}

/// A model that stays until this is dropped.
pub struct ModelGuard(Guard<Option<Arc<Model>>>);

impl ModelGuard {
    pub fn model(&self) -> &Model {
        self.0.as_ref().expect("it was there")
    }
}

/// Finds a model.
pub fn hold(handle: *mut c_void) -> Result<ModelGuard> {
    let held = MODELS.load().get(&handle.addr()).map(|slot| ModelGuard(slot.load()));
    held.filter(|held| held.0.is_some()).ok_or_else(|| {
        Error::invalid(match handle.is_null() {
            true => "model_buf is NULL: pass what initialize() returned".to_string(),
            false => format!(
                "model_buf is {handle:?}, which is no model, or one that \
                 session_group_processor_destroy() has ended"
            ),
        })
    })
}

/// Ends a model, once no request uses it, or with those that don't end by themselves.
pub fn remove(handle: *mut c_void) {
    let mut removed = None;
    MODELS.rcu(|models| {
        let mut models = Models::clone(models);
        removed = models.remove(&handle.addr());
        models
    });
    let Some(mut model) = removed.and_then(|slot| slot.swap(None)) else { return };
    let begun = Instant::now();
    let mut has_cancelled = false;
    loop {
        match Arc::try_unwrap(model) {
            Ok(model) => return drop(model),
            Err(used) => model = used,
        }
        if !has_cancelled && begun.elapsed() >= model.drain() {
            has_cancelled = true;
            model.end_updates();
            if let Err(error) = model.cancel() {
                // Who still uses the model may be the last, and frees it then.
                return warn!("session_group_processor_destroy(): {}", error.message);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
