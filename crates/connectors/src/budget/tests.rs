//! Who gets memory when there is not enough.

use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use super::*;

fn used(budget: &Budget) -> (u64, usize) {
    let Usage { held_bytes, waiting, .. } = budget.usage();
    (held_bytes, waiting)
}

/// Asks for a part, and stands in the queue.
fn asks(share: &Share, bytes: u64) -> BoxFuture<'static, Held> {
    let share = share.clone();
    let mut asking = async move { share.take(bytes).await }.boxed();
    assert!((&mut asking).now_or_never().is_none(), "there should be nothing left");
    asking
}

fn gets(asking: &mut BoxFuture<'static, Held>) -> Option<Held> {
    asking.now_or_never()
}

#[tokio::test]
async fn whoever_finds_enough_does_not_wait() {
    let budget = Budget::new(10);
    let (one, other) = (budget.share(), budget.share());
    let held = [one.take(4).now_or_never(), other.take(6).now_or_never()];
    assert!(held.iter().all(Option::is_some));
    assert_eq!(used(&budget), (10, 0));
    drop(asks(&one, 1));
    drop(held);
    assert_eq!(used(&budget), (0, 0));
    assert!(one.take(10).now_or_never().is_some_and(|_| used(&budget) == (10, 0)));
    assert_eq!(used(&budget), (0, 0));
}

#[tokio::test]
async fn who_holds_least_comes_first_and_then_who_asked_first() {
    let budget = Budget::new(10);
    let (rich, poor, late, other) = (budget.share(), budget.share(), budget.share(), budget.share());
    let mut of_rich_before: Vec<Held> = join_all((0..3).map(|_| rich.take(1))).await;
    let of_poor_before = poor.take(1).await;
    let of_other = other.take(6).await;
    let mut of_rich = asks(&rich, 1);
    let mut of_poor = asks(&poor, 1);
    let (mut first_of_late, mut second_of_late) = (asks(&late, 1), asks(&late, 1));
    drop(of_other);
    let first_of_late = gets(&mut first_of_late).expect("it has nothing");
    assert!([&mut of_rich, &mut of_poor, &mut second_of_late].into_iter().all(|asking| gets(asking).is_none()));
    drop(of_rich_before.pop());
    // `late` has as much as `poor`, who asked before.
    let of_poor = gets(&mut of_poor).expect("it has less than the rich one");
    assert!([&mut of_rich, &mut second_of_late].into_iter().all(|asking| gets(asking).is_none()));
    drop(of_poor_before);
    let second_of_late = gets(&mut second_of_late).expect("it asked last, and has less than the rich one");
    assert!(gets(&mut of_rich).is_none());
    drop((first_of_late, second_of_late, of_poor));
    assert!(gets(&mut of_rich).is_some(), "in the end it has its turn as well");
}

#[tokio::test]
async fn twenty_that_stand_still_with_all_that_they_may_have_leave_room_for_each_other() {
    let budget = Budget::new(256);
    let mut asking = Vec::new();
    let mut held = Vec::new();
    for _ in 0..20 {
        let share = budget.share();
        // Four files of one task, each with four parts of 8; none is ever given back.
        let ask = |share: Share| async move { share.take(8).await }.boxed();
        let mut parts: Vec<BoxFuture<'static, Held>> = (0..16).map(|_| ask(share.clone())).collect();
        held.push(parts.iter_mut().filter_map(gets).collect::<Vec<_>>());
        asking.extend(parts);
    }
    let counts: Vec<usize> = held.iter().map(Vec::len).collect();
    assert_eq!(counts[..4], [9, 4, 2, 1], "who is alone gets more than a quarter, and nobody all");
    assert!(counts[4..].iter().all(|&parts| parts == 1), "{counts:?}");
    assert_eq!(budget.usage().held_bytes, 256);
}

#[tokio::test]
async fn nobody_overtakes_a_large_part_and_one_that_is_too_large_comes_alone() {
    let budget = Budget::new(10);
    let (first, large, small, huge) = (budget.share(), budget.share(), budget.share(), budget.share());
    let held = first.take(6).await;
    let mut of_large = asks(&large, 8);
    // There would be room for it.
    let mut of_small = asks(&small, 2);
    let mut of_huge = asks(&huge, 1000);
    drop(held);
    let held = [gets(&mut of_large).unwrap(), gets(&mut of_small).unwrap()];
    assert_eq!(used(&budget), (10, 1));
    for part in held {
        assert!(gets(&mut of_huge).is_none());
        drop(part);
    }
    let held = gets(&mut of_huge).unwrap();
    assert_eq!(used(&budget), (1000, 0), "it counts as large as it is");
    drop(held);
    assert_eq!(used(&budget), (0, 0));
}

#[tokio::test]
async fn who_gives_up_leaves_nothing_behind() {
    let budget = Budget::new(10);
    let (first, second, third) = (budget.share(), budget.share(), budget.share());
    let held = first.take(5).await;
    let blocks = asks(&second, 8);
    let mut behind = asks(&third, 5);
    assert!(gets(&mut behind).is_none());
    // It held the queue up.
    drop(blocks);
    let other = gets(&mut behind).expect("the first of the queue has gone");
    // It is served, but never learns of it.
    let unaware = asks(&second, 10);
    drop((held, other));
    assert_eq!(used(&budget), (10, 0));
    drop(unaware);
    assert_eq!(used(&budget), (0, 0));
}

#[tokio::test]
async fn a_hundred_transfers_get_done_within_the_budget_and_none_falls_behind() {
    const ROUNDS: usize = 20;
    let budget = Budget::new(40);
    let most = AtomicU64::new(0);
    let done = Mutex::new([0; 100]);
    let transfers = (0..100).map(|number| {
        let share = budget.share();
        let (budget, most, done) = (&budget, &most, &done);
        async move {
            for round in 0..ROUNDS {
                // Two parts at once, of sizes that never fit evenly; every tenth transfer has large ones.
                let bytes = if number % 10 == 0 { 39 } else { 3 + (number + round) as u64 % 5 };
                let first = share.take(bytes).await;
                let mut second = pin!(share.take(bytes));
                let early = (&mut second).now_or_never();
                most.fetch_max(budget.usage().held_bytes, Ordering::Relaxed);
                tokio::task::yield_now().await;
                drop(first);
                drop(match early {
                    Some(second) => second,
                    None => second.await,
                });
                let mut done = done.lock().unwrap();
                done[number] += 1;
                let still_at_work = done.iter().filter(|&&rounds| rounds < ROUNDS);
                let (least, most) =
                    still_at_work.clone().fold((ROUNDS, 0), |(low, high), &rounds| (low.min(rounds), high.max(rounds)));
                assert!(most <= least + 2 || still_at_work.count() == 0, "one made {most} rounds, another {least}");
            }
        }
    });
    join_all(transfers).await;
    assert!(most.load(Ordering::Relaxed) <= 40 && most.load(Ordering::Relaxed) > 30, "{most:?}");
    assert_eq!(used(&budget), (0, 0));
}
