//! What `/metrics` shows and what the table says are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::table::TABLE;
use super::*;
use crate::id::UserId;

/// Metrics with something in every family.
fn filled() -> Metrics {
    let metrics = Metrics::new();
    let took = Duration::from_millis(3);
    metrics.answered("GET", "/v2/jobs", 200, took);
    metrics.attempted("export/s3", "finished", took);
    metrics.claimed(took);
    metrics.stored("claim", took);
    metrics.task_retried("export/s3", Code::RemoteTimeout);
    metrics.connector_retried("export/s3", Code::RemoteTimeout);
    metrics.host_retried("h.test:1", Code::RemoteTimeout);
    for (is_import, size_bytes) in [(true, Some(5)), (false, Some(7)), (false, None)] {
        metrics.moved(&Moved { operation: "o", host: Some("h.test:1"), is_import, size_bytes, took });
    }
    metrics.set_counts(&Counts { queued: 10, running: 4, ..Counts::default() }, &[]);
    metrics
}

/// Type and names of labels of each metric, as the text has them.
fn shown(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            found.insert(name, (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let (_, seen) = found.get_mut(base).or(None).unwrap_or_else(|| panic!("{base} has no type"));
            let names = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            seen.extend(names.map(|(name, _)| name.to_owned()).filter(|name| name != "le"));
        }
    }
    found
}

#[tokio::test]
async fn the_memory_of_transfers_is_told_as_it_is_at_that_moment() {
    let (metrics, budget) = (Metrics::new(), Budget::new(10));
    metrics.watch_memory(budget.clone());
    let told = |total, used, waiting| {
        let text = metrics.text();
        let names = ["memory_bytes", "memory_used_bytes", "parts_waiting"].into_iter().zip([total, used, waiting]);
        for (name, value) in names {
            assert!(text.contains(&format!("\nconsign_transfer_{name} {value}\n")), "{name} is not {value}");
        }
    };
    told(10, 0, 0);
    let share = budget.share();
    let held = share.take(7).await;
    let mut waiting = Box::pin(share.take(4));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    told(10, 7, 1);
    drop((held, waiting));
    told(10, 0, 0);
}

#[test]
fn the_page_and_the_table_agree() {
    let found = shown(&filled().text());
    let told = TABLE.iter().map(|entry| {
        let labels = entry.labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (entry.name.to_owned(), (entry.kind.name().to_owned(), labels))
    });
    assert_eq!(found, told.collect());
    let text = filled().text();
    for entry in TABLE {
        let name = entry.name.strip_suffix("_total").unwrap_or(entry.name);
        assert!(text.contains(&format!("# HELP {name} {}.\n", entry.help)), "{name} is not explained");
    }
}

#[test]
fn who_fills_the_queue_is_named_and_the_rest_is_summed() {
    let metrics = Metrics::new();
    let load = |user, queued, running| Load { user: UserId(user), queued, running };
    let counts = Counts { queued: 10, running: 4, ..Counts::default() };
    metrics.set_counts(&counts, &[load(7, 6, 1), load(3, 1, 2)]);
    let lines = |wanted: &[&str]| {
        let text = metrics.text();
        for line in wanted {
            assert!(text.lines().any(|found| found == *line), "{line} is not in\n{text}");
        }
        text
    };
    lines(&[
        r#"consign_user_tasks_queued{user="7"} 6"#,
        r#"consign_user_tasks_queued{user="3"} 1"#,
        r#"consign_user_tasks_queued{user="other"} 3"#,
        r#"consign_user_tasks_running{user="other"} 1"#,
    ]);
    metrics.set_counts(&Counts { queued: 2, ..Counts::default() }, &[load(9, 2, 0)]);
    let text = lines(&[r#"consign_user_tasks_queued{user="9"} 2"#, r#"consign_user_tasks_queued{user="other"} 0"#]);
    assert!(!text.contains(r#"user="7""#), "who is gone is not told any more: {text}");
}

#[test]
fn repetitions_share_the_bounded_names_of_hosts_with_transfers() {
    let metrics = Metrics::new();
    for number in 0..HOSTS_MAX {
        let host = format!("h{number}.test");
        let (host, took) = (Some(host.as_str()), Duration::ZERO);
        metrics.moved(&Moved { operation: "o", host, is_import: false, size_bytes: None, took });
    }
    for host in ["H0.test:443", "late.test", "later.test"] {
        metrics.host_retried(host, Code::RemoteThrottled);
    }
    let text = metrics.text();
    for line in [
        r#"consign_host_retries_total{host="h0.test",reason="REMOTE_THROTTLED"} 1"#,
        r#"consign_host_retries_total{host="other",reason="REMOTE_THROTTLED"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_transfer_counts_by_host_and_a_failed_one_brings_no_bytes() {
    let text = filled().text();
    for line in [
        r#"consign_host_transfers_total{host="h.test",direction="in",outcome="ok"} 1"#,
        r#"consign_host_transfers_total{host="h.test",direction="out",outcome="failed"} 1"#,
        r#"consign_host_bytes_total{host="h.test",direction="out"} 7"#,
        r#"consign_host_retries_total{host="h.test",reason="REMOTE_TIMEOUT"} 1"#,
        r#"consign_import_bytes_total{operation="o"} 5"#,
        r#"consign_export_bytes_total{operation="o"} 7"#,
        r#"consign_lease_losses_total{reason="fenced"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let held = filled();
    let one = Held::of(&held.waits);
    assert!(held.text().contains("consign_waits_open 1"));
    drop(one);
    assert!(held.text().contains("consign_waits_open 0"));
}
