//! (to come)
pub(super) async fn all(_make: &impl AsyncFn() -> std::sync::Arc<dyn crate::store::Store>) {}
