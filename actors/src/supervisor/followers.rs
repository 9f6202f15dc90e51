//! What follows into the dead-letter topic gathers for a moment: each transaction with a letter has to write to one
//! more topic, with requests and markers of its own for each partition, and keys that fail would take the others'
//! time with it.

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::SupervisorActor;
use crate::order::{FollowOn, LaneCell, OrderActor};

/// Lanes whose next record follows, over all partitions of a handler. One entry a lane.
#[derive(Default)]
pub struct Followers {
    waiting: Vec<Addr<OrderActor>>,
}

impl Followers {
    /// A lane's next record follows with the others'. `true` if it is the first: somebody has to say when.
    pub fn add(&mut self, cell: &LaneCell, actor: impl FnOnce() -> Addr<OrderActor>) -> bool {
        if cell.follows.replace(true) {
            return false;
        }
        self.waiting.push(actor());
        self.waiting.len() == 1
    }
}

/// The first lane waits to follow.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Gather;

impl Handler<Gather> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Gather, ctx: &mut Context<Self>) {
        let wait = self.pipeline().policy.followers_gather;
        ctx.run_later(wait, |supervisor, _| {
            let pipeline = supervisor.pipeline();
            let waiting = std::mem::take(&mut pipeline.followers.borrow_mut().waiting);
            for actor in waiting {
                // One for each lane.
                actor.do_send(FollowOn);
            }
        });
    }
}
