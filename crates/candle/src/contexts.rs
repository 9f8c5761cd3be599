//! Contexts that the calls of a model's layers share.

use std::sync::{Arc, Mutex, PoisonError};

use gptq_core::device::Context;
use gptq_core::post_init::FinalizedModel;

/// A finalized model, and contexts that no call uses now. Cloning shares both.
#[derive(Clone)]
pub(crate) struct Contexts {
    model: Arc<FinalizedModel>,
    idle: Idle<Context>,
    /// On streams of candle's.
    #[cfg(feature = "cuda")]
    pub(crate) lent: Arc<crate::cuda::Streams>,
}

impl Contexts {
    pub(crate) fn new(model: FinalizedModel) -> Self {
        Self {
            model: Arc::new(model),
            idle: Idle::default(),
            #[cfg(feature = "cuda")]
            lent: Arc::default(),
        }
    }

    pub(crate) fn model(&self) -> &FinalizedModel {
        &self.model
    }

    /// The GPU of candle's device.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu(
        &self,
        device: &candle_core::cuda_backend::CudaDevice,
    ) -> candle_core::Result<gptq_cuda::Gpu> {
        self.lent.gpu(device, &self.model)
    }

    /// Makes a call with a context of the model's own device that no other call uses.
    pub(crate) fn with<T>(
        &self,
        call: impl FnOnce(&mut Context) -> gptq_core::Result<T>,
    ) -> gptq_core::Result<T> {
        let mut context = match self.idle.take(|_| true) {
            Some(context) => context,
            None => self.model.context()?,
        };
        let result = call(&mut context);
        self.idle.put(context);
        result
    }
}

/// What no call uses now.
pub(crate) struct Idle<T>(Arc<Mutex<Vec<T>>>);

impl<T> Idle<T> {
    /// One that `fits`, if there is any.
    pub(crate) fn take(&self, fits: impl FnMut(&T) -> bool) -> Option<T> {
        let mut idle = self.lock();
        let at = idle.iter().position(fits)?;
        Some(idle.swap_remove(at))
    }

    pub(crate) fn put(&self, item: T) {
        self.lock().push(item);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        // Between taking and putting there is no state that a panic could leave half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Idle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
