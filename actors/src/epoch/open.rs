//! The open epoch: the list of partitions that have something to write, until the committer
//! closes it.

use std::cell::RefCell;
use std::rc::Rc;

use actix::Addr;

use super::committer::{Close, Committer};
use crate::partition::PartitionState;

/// Shared by all actors of a handler; they live on one thread.
#[derive(Default)]
pub struct OpenEpoch {
    touched: Vec<Rc<RefCell<PartitionState>>>,
    committer: Option<Addr<Committer>>,
    /// Whether the committer knows already that there is something to write.
    announced: bool,
    committed: u64,
}

impl OpenEpoch {
    /// Notes that a partition's share is not empty. The first note of an epoch wakes the committer.
    pub fn touch(&mut self, partition: &Rc<RefCell<PartitionState>>) {
        if partition.borrow_mut().list() {
            self.touched.push(partition.clone());
        }
        if !self.announced {
            self.announced = true;
            if let Some(committer) = &self.committer {
                // At most one such message is under way, so the mailbox cannot fill up.
                committer.do_send(Close);
            }
        }
    }

    /// Number of the last committed epoch.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn attach(&mut self, committer: Addr<Committer>) {
        self.committer = Some(committer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Takes partitions, those first that have waited longest, until they hold `max_bytes`; at
    /// least one. The others stay for the next epoch.
    pub(super) fn take(&mut self, max_bytes: u64) -> Vec<Rc<RefCell<PartitionState>>> {
        let mut bytes = 0;
        let fits = |partition: &&Rc<RefCell<PartitionState>>| {
            let before = bytes;
            bytes += partition.borrow().open_bytes();
            before < max_bytes
        };
        let count = self.touched.iter().take_while(fits).count();
        let rest = self.touched.split_off(count);
        // What stays is announced already: the committer looks again when the writer is free.
        self.announced = !rest.is_empty();
        std::mem::replace(&mut self.touched, rest)
    }

    pub(super) fn set_committed(&mut self, number: u64) {
        self.committed = number;
    }
}
