//! Puts a handler's actors together on the thread that calls it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::sync::RwLock;

use crate::aside::Want;
use crate::epoch::{AssignmentEpoch, Committer, Epoch, OpenEpoch};
use crate::handler::{Handler, Source};
use crate::pipeline::{Alarm, LedgerView, Pipeline, Places};
use crate::policy::Policy;
use crate::record::Partition;
use crate::refused::RefusedEffects;
use crate::stats::HandlerStats;
use crate::supervisor::{Attach, SupervisorActor};

/// What the actors of a handler need of the world.
pub struct World {
    /// Settings.
    pub policy: Policy,
    /// Input.
    pub source: Arc<Source>,
    /// What records are handed to.
    pub handler: Arc<dyn Handler>,
    /// The ledger as it lies on this machine.
    pub view: Box<dyn LedgerView>,
    /// What topics refused of its effects.
    pub refused: Arc<RefusedEffects>,
    /// What others observe.
    pub stats: Arc<HandlerStats>,
    /// One for the whole process: who begins carefully passes it.
    pub gate: Arc<RwLock<()>>,
    /// Is asked for commands and dead letters.
    pub aside: Box<dyn Fn(Want) + Send>,
    /// Takes closed epochs, one at a time.
    pub sink: Box<dyn Fn(Epoch) + Send>,
    /// Takes a partition anew from its ledger: claims, restores and starts it again under a new assignment.
    pub rebuild: Box<dyn Fn(Partition, AssignmentEpoch) + Send>,
    /// Is told why the handler cannot go on.
    pub on_halt: Box<dyn Fn(String) + Send>,
}

/// Where a handler's actors are reached.
#[derive(Clone)]
pub struct Actors {
    /// Root of the handler's tree.
    pub supervisor: Addr<SupervisorActor>,
    /// Is told of decided epochs.
    pub committer: Addr<Committer>,
}

/// Starts supervisor and committer on the current arbiter.
pub fn start(world: World) -> Actors {
    let World { policy, source, handler, view, refused, stats, gate, aside, sink, rebuild, on_halt } = world;
    // A handler that is begun anew keeps its counters, not its breaker.
    stats.breaker.set_open(None);
    stats.set_unwritten(None);
    let open = Rc::new(RefCell::new(OpenEpoch::default()));
    let alarm = Alarm::new(source.handler.clone(), Rc::from(on_halt as Box<dyn Fn(String)>));
    let committer = Committer::new(open.clone(), sink, stats.clone(), &policy, alarm.clone()).start();
    let supervisor = SupervisorActor::create(|ctx: &mut Context<SupervisorActor>| {
        ctx.set_mailbox_capacity(policy.mailbox_capacity);
        let mut supervisor = SupervisorActor::new(
            source.handler.clone(),
            source.topic.clone(),
            policy.retry.clone(),
            alarm.clone(),
        );
        supervisor.attach(Attach(Rc::new(Pipeline {
            aside,
            places: RefCell::new(Places::new(policy.max_in_flight)),
            breaker: RefCell::default(),
            followers: RefCell::default(),
            policy,
            source,
            handler,
            view,
            refused,
            stats,
            gate,
            rebuild,
            open,
            supervisor: ctx.address(),
            alarm,
        })));
        supervisor
    });
    Actors { supervisor, committer }
}
