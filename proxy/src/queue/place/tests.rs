use super::*;
use crate::queue::series::{Families, InUse};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local, yield_now};

const LONG: Duration = Duration::from_secs(3600);

fn queue(capacity: Capacity, weights: &[(&str, u32)]) -> Arc<Queue> {
    let families = Families::register(&prometheus::Registry::new(), &InUse::default()).unwrap();
    let weights = weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
    Queue::new(&"m".into(), capacity, &Arc::new(weights), families.of("m"))
}

fn capacity(at_work: usize, waiting: usize) -> Capacity {
    Capacity { at_work, waiting, wait: LONG }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Asks for a place on behalf of `organization`, says so in `order` when it has it, and keeps it until it may go; or the status of
/// the refusal.
fn ask(queue: &Arc<Queue>, organization: &'static str, go: &Go) -> JoinHandle<Result<(), u16>> {
    let (queue, go) = (queue.clone(), go.clone());
    spawn_local(async move {
        let _place = queue.enter(&organization.into(), Duration::MAX).await.map_err(|fault| fault.status())?;
        go.order.borrow_mut().push(organization);
        go.gates.acquire().await.unwrap().forget();
        Ok(())
    })
}

#[derive(Clone)]
struct Go {
    gates: Rc<Semaphore>,
    order: Rc<RefCell<Vec<&'static str>>>,
}

impl Go {
    fn new() -> Self {
        Self { gates: Rc::new(Semaphore::new(0)), order: Rc::default() }
    }

    /// Lets so many go, and those that come after them come.
    async fn on(&self, count: usize) {
        self.gates.add_permits(count);
        for _ in 0..4 * count + 4 {
            yield_now().await;
        }
    }
}

#[test]
fn one_organization_cannot_fill_the_queue() {
    run(async {
        let (queue, go) = (queue(capacity(1, 30), &[]), Go::new());
        let burst: Vec<_> = (0..100).map(|_| ask(&queue, "burst", &go)).collect();
        go.on(0).await;
        assert_eq!(queue.count(), (1, 20), "two thirds are its own at most");
        let quiet = ask(&queue, "quiet", &go);
        go.on(0).await;
        assert_eq!(queue.count(), (1, 21), "there was room");
        go.on(100).await;
        assert_eq!(quiet.await.unwrap(), Ok(()));
        let mut refused = 0;
        for one in burst {
            refused += usize::from(one.await.unwrap() == Err(429));
        }
        assert_eq!((refused, &go.order.borrow()[..3]), (79, &["burst", "quiet", "burst"][..]), "its turn came early");
        assert_eq!(queue.count(), (0, 0));
    });
}

#[test]
fn refusals_say_when_to_come_back() {
    run(async {
        let limit = Duration::from_secs(1);
        let (queue, go) = (queue(Capacity { at_work: 2, waiting: 1, wait: limit }, &[]), Go::new());
        let held = [ask(&queue, "a", &go), ask(&queue, "a", &go)];
        go.on(0).await;
        queue.state.lock().turns.held("a", 10.0);
        let began = Instant::now();
        let late = ask(&queue, "b", &go);
        go.on(0).await;
        let full = queue.enter(&"c".into(), Duration::MAX).await.err().unwrap();
        // Two before it at ten seconds each, over two places.
        assert_eq!((full.status(), full.retry_after), (503, Some(Duration::from_secs(10))));
        assert_eq!(late.await.unwrap(), Err(503));
        assert!(began.elapsed() >= limit);
        assert_eq!(queue.count(), (2, 0), "who goes leaves nothing behind");
        queue.settle(Some(Capacity { at_work: 2, waiting: 1, wait: LONG }), &Arc::default());
        let (c, patience) = ("c".into(), Duration::from_millis(1));
        let hurried = tokio::time::timeout(Duration::from_secs(10), queue.enter(&c, patience)).await;
        assert_eq!(hurried.expect("it would have waited no longer").err().unwrap().status(), 503);
        go.on(2).await;
        for one in held {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
    });
}

#[test]
fn who_leaves_is_not_waited_for() {
    run(async {
        let (queue, go) = (queue(capacity(1, 10), &[]), Go::new());
        let held = queue.enter(&"a".into(), LONG).await.unwrap();
        let (first, second) = (ask(&queue, "a", &go), ask(&queue, "a", &go));
        go.on(0).await;
        assert_eq!(queue.count(), (1, 2));
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(queue.count(), (1, 1));
        drop(held);
        assert_eq!(queue.count(), (1, 0));
        // Called, and gone before it heard of it.
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        assert_eq!(queue.count(), (0, 0));
        assert!(queue.enter(&"a".into(), LONG).await.is_ok());
    });
}

#[test]
fn a_change_of_limits_counts_for_those_who_wait() {
    run(async {
        let (queue, go) = (queue(capacity(1, 100), &[]), Go::new());
        let asked: Vec<_> = (0..20).map(|_| ask(&queue, "a", &go)).collect();
        go.on(0).await;
        assert_eq!(queue.count(), (1, 19));
        let weights = Arc::default();
        queue.settle(Some(capacity(8, 100)), &weights);
        assert_eq!(queue.count(), (8, 12));
        queue.settle(Some(capacity(2, 0)), &weights);
        go.on(8).await;
        assert_eq!(queue.count(), (2, 10), "nobody is sent away, and no more than two go on");
        let beyond = queue.step_in(&"a".into());
        assert_eq!(queue.count(), (3, 10));
        drop(beyond);
        assert_eq!(queue.count(), (2, 10), "one that stepped in leaves all as it was");
        queue.settle(None, &weights);
        assert_eq!(queue.count(), (12, 0));
        go.on(20).await;
        for one in asked {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert_eq!(queue.count(), (0, 0));
    });
}

/// Threads that ask, wait, give up and leave as fast as they can, for half a second. A lost wake-up would leave one waiting for an
/// hour; a place given twice would exceed the limit.
#[test]
fn no_place_is_lost_or_given_twice() {
    let queue = queue(capacity(3, 1000), &[("a", 1), ("b", 3)]);
    let (at_work, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let until = std::time::Instant::now() + Duration::from_millis(500);
    let client = |number: usize| {
        let organization: Arc<str> = ["a", "b", "c"][number % 3].into();
        let (queue, at_work, served) = (&queue, &at_work, &served);
        async move {
            while std::time::Instant::now() < until {
                let patience = if fastrand::bool() { LONG } else { Duration::from_micros(fastrand::u64(0..300)) };
                let entering = queue.enter(&organization, patience);
                let leave = async {
                    if fastrand::u8(..) < 64 {
                        return tokio::time::sleep(Duration::from_micros(fastrand::u64(0..200))).await;
                    }
                    std::future::pending().await
                };
                tokio::select! {
                    entered = entering => {
                        let Ok(place) = entered else { continue };
                        assert!(at_work.fetch_add(1, Ordering::SeqCst) < 3);
                        if fastrand::bool() { yield_now().await; }
                        at_work.fetch_sub(1, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::Relaxed);
                        drop(place);
                    }
                    () = leave => {}
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let all = futures_util::future::join_all((0..8).map(|number| client(thread * 8 + number)));
                runtime
                    .block_on(async { tokio::time::timeout(Duration::from_secs(20), all).await })
                    .expect("nobody hangs");
            });
        }
    });
    assert_eq!(queue.count(), (0, 0));
    assert!(served.load(Ordering::Relaxed) > 500);
}
