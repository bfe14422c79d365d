//! Which traces are sent: a part of them that the operator chooses, and no client.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Decides about our own traces by their id, so that all processes decide alike about a job, and about what is inside them
/// as about them. Ids and flags that clients bring are theirs to choose, so that there a die is thrown: nobody can have every
/// request traced, or none.
pub(super) fn sampler(ratio: f64) -> ParentBasedSampler {
    Sampler::parent_based(ById { ratio })
        .with_remote_parent_sampled(Die { ratio })
        .with_remote_parent_not_sampled(Die { ratio })
}

/// Chooses this part by the last 32 bits of the id, which are random in a job's id as in any other. The library's own sampler
/// goes by bits that say in a UUID of which kind it is, so that it would choose all jobs or none.
///
/// # Source
/// RFC 9562, section 5.7 (UUID version 7).
#[derive(Clone, Debug)]
struct ById {
    ratio: f64,
}

impl ShouldSample for ById {
    fn should_sample(
        &self,
        _: Option<&Context>,
        trace: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let [.., a, b, c, d] = trace.to_bytes();
        let place = f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0);
        result(place < self.ratio)
    }
}

/// Chooses this part at random.
#[derive(Clone, Debug)]
struct Die {
    ratio: f64,
}

impl ShouldSample for Die {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        result(rand::random::<f64>() < self.ratio)
    }
}

fn result(is_chosen: bool) -> SamplingResult {
    let decision = if is_chosen { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
    SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags};

    use super::*;
    use crate::clock::Clock;
    use crate::id::JobId;

    /// How many of a thousand requests are traced whose client chooses this.
    fn traced(ratio: f64, trace: u128, flags: TraceFlags, is_remote: bool) -> usize {
        let sampler = sampler(ratio);
        let span = SpanContext::new(TraceId::from(trace), SpanId::from(1), flags, is_remote, TraceState::NONE);
        let context = Context::new().with_remote_span_context(span);
        let is_traced = || {
            let result =
                sampler.should_sample(Some(&context), TraceId::from(trace), "x", &SpanKind::Internal, &[], &[]);
            result.decision == SamplingDecision::RecordAndSample
        };
        (0..1000).filter(|_| is_traced()).count()
    }

    #[test]
    fn as_many_jobs_are_traced_as_was_asked_for() {
        let now = Clock::system().now();
        let jobs: Vec<_> = (0..1000).map(|_| TraceId::from(JobId::new(now).0.as_u128())).collect();
        // Six standard deviations to either side: by chance that fails once in hundreds of millions of runs.
        let wanted = [(0.0, 0..=0), (0.1, 43..=157), (0.5, 405..=595), (0.9, 843..=957), (1.0, 1000..=1000)];
        for (ratio, sensible) in wanted {
            let sampler = sampler(ratio);
            let is_traced = |job: TraceId| {
                let result = sampler.should_sample(None, job, "x", &SpanKind::Internal, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            };
            let found: Vec<bool> = jobs.iter().map(|job| is_traced(*job)).collect();
            let count = found.iter().filter(|is_traced| **is_traced).count();
            assert!(sensible.contains(&count), "{count} of 1000 for {ratio}");
            let again: Vec<bool> = jobs.iter().map(|job| is_traced(*job)).collect();
            assert_eq!(found, again, "every process decides alike");
        }
    }

    #[test]
    fn no_client_chooses_what_is_traced() {
        // The first id is sampled by any ratio that goes by the id, the second one by none.
        for trace in [1, u128::MAX] {
            for flags in [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED] {
                let found = traced(0.1, trace, flags, true);
                assert!((30..300).contains(&found), "{found} of 1000, {trace:x}, {flags:?}");
                assert_eq!((traced(1.0, trace, flags, true), traced(0.0, trace, flags, true)), (1000, 0));
            }
        }
    }

    #[test]
    fn what_is_inside_follows_what_is_around_it() {
        for trace in [1, u128::MAX] {
            assert_eq!(traced(0.1, trace, TraceFlags::SAMPLED, false), 1000);
            assert_eq!(traced(0.1, trace, TraceFlags::NOT_SAMPLED, false), 0);
        }
    }
}
