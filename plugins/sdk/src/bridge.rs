//! From the component's exports to the [`Plugin`] trait.
//!
//! A component holds one plugin, read from the configuration at its first hook and kept for the instance's life: the
//! configuration never changes within one.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::marker::PhantomData;

use crate::bindings::exports::tidegate::plugin::hooks::{Admission, Description, Exchange, Guest, GuestExchange};
use crate::{Call, End, Event, Hooks, Interests, Plugin, Rewrite, Verdict, host};

/// The component that holds a `P`.
pub struct Bridge<P>(PhantomData<P>);

/// The exchange of a `P`, as the component model holds it: shared, hence the cell. Calls into an instance never overlap.
pub struct Memory<P: Plugin>(RefCell<P::Exchange>);

thread_local! {
    static PLUGIN: OnceCell<&'static dyn Any> = const { OnceCell::new() };
}

impl<P: Plugin> Guest for Bridge<P> {
    type Exchange = Memory<P>;

    fn describe() -> Description {
        report_panics();
        describe(&read::<P>())
    }

    fn on_call(call: &crate::bindings::tidegate::plugin::calls::Call) -> Admission {
        report_panics();
        #[cfg(target_family = "wasm")]
        {
            let call = Call::new(call);
            let mut memory = P::Exchange::default();
            let plugin = plugin::<P>();
            let verdict = plugin.on_call(&call, &mut memory);
            let exchange = follows(plugin, &verdict, call.is_reply_ignored());
            Admission { verdict, exchange: exchange.then(|| Exchange::new(Memory::<P>(RefCell::new(memory)))) }
        }
        // Natively there is no host to have sent this: `testing` calls the trait itself.
        #[cfg(not(target_family = "wasm"))]
        {
            let _ = (call, plugin::<P>, Call::new);
            Admission { verdict: Verdict::Pass, exchange: None::<Exchange> }
        }
    }

    fn on_end(exchange: Exchange, end: End) {
        let Memory::<P>(memory) = exchange.into_inner();
        plugin::<P>().on_end(memory.into_inner(), end);
    }
}

impl<P: Plugin> GuestExchange for Memory<P> {
    fn new() -> Self {
        report_panics();
        Self(RefCell::default())
    }

    fn on_events(&self, events: Vec<Event>) -> Rewrite {
        plugin::<P>().on_events(&mut self.0.borrow_mut(), events)
    }
}

/// Marks a plugin as used.
pub const fn exported<P: Plugin>() {}

/// Whether a later hook is of interest after this verdict.
pub(crate) fn follows<P: Plugin>(plugin: &P, verdict: &Verdict, reply_ignored: bool) -> bool {
    let later = plugin.hooks().intersects(Hooks::ON_EVENTS | Hooks::ON_END);
    later && !reply_ignored && !matches!(verdict, Verdict::Refuse(_))
}

/// Reads the plugin from its configuration.
///
/// # Errors
/// What is wrong with it, in serde's words or the plugin's.
pub(crate) fn read<P: Plugin>() -> Result<P, String> {
    serde_json::from_str(&host::config::get()).map_err(|error| {
        let problem = error.to_string();
        // The place is one in the gateway's rendering of it, which nobody sees.
        problem.rsplit_once(" at line ").map_or(problem.clone(), |(what, _)| what.into())
    })
}

/// What the host is told at load.
pub(crate) fn describe<P: Plugin>(plugin: &Result<P, String>) -> Description {
    Description {
        name: P::NAME.into(),
        version: P::VERSION.into(),
        hooks: plugin.as_ref().map_or(Hooks::empty(), P::hooks),
        events: plugin.as_ref().map_or(Interests::empty(), P::events),
        config_schema: P::SCHEMA.map(Into::into),
        config_problem: plugin.as_ref().err().cloned(),
        metrics: P::METRICS.iter().map(|metric| metric.declare()).collect(),
    }
}

fn plugin<P: Plugin>() -> &'static P {
    let any = PLUGIN.with(|cell| {
        *cell.get_or_init(|| match read::<P>() {
            Ok(plugin) => Box::leak(Box::new(plugin)),
            // `describe` has said so, and a plugin that says so is not loaded.
            Err(problem) => panic!("configuration: {problem}"),
        })
    });
    any.downcast_ref().expect("a component holds one plugin")
}

/// A panic ends the instance with a bare trap; its message is worth a log line. Without WASI there is no stderr for it.
fn report_panics() {
    #[cfg(target_family = "wasm")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| crate::log::error("the plugin panicked", &[("panic", &panic)])));
        });
    }
}
