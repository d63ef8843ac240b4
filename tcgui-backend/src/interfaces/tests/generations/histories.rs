//! Random histories of one link without lost events: each life of the link has one generation of its own.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The link is deleted.
    Delete,
    /// Creates the link with the same index, kind and fingerprint. An existing link is deleted first.
    Create,
    /// The tracker handles one event.
    Handle,
    Begin,
    /// The dump under way reads the links.
    Dump,
    End,
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{Begin, Create, Delete, Dump, End, Fail, Handle};
    prop::sample::select(vec![Delete, Create, Handle, Begin, Dump, End, Fail])
}

/// The namespace `A` and its tracker.
struct World {
    bench: Bench,
    /// The number of the link's current life. `None`: there is no link.
    life: Option<u64>,
    lives: u64,
    /// The namespace has an id, so the kernel reports its events.
    has_id: bool,
    queue: VecDeque<KernelEvent>,
    /// The links that the dump under way has read.
    dumped: Option<Option<u64>>,
    life_of: HashMap<u64, u64>,
    generation_of: HashMap<u64, u64>,
}

impl World {
    fn new() -> Self {
        Self {
            bench: Bench::of(NetnsKey::Mounted(A)),
            life: None,
            lives: 0,
            has_id: false,
            queue: VecDeque::new(),
            dumped: None,
            life_of: HashMap::new(),
            generation_of: HashMap::new(),
        }
    }

    fn queue_event(&mut self, event: KernelEvent) {
        if self.has_id {
            self.queue.push_back(event);
        }
    }

    fn delete(&mut self) {
        if self.life.take().is_some() {
            self.queue_event(KernelEvent::Deleted(Some(ID), 1));
        }
    }

    fn dump(&mut self) -> Option<u64> {
        self.has_id = true;
        *self.dumped.get_or_insert(self.life)
    }

    /// Handles all events before the dump ends, as the actor does.
    fn handle_all(&mut self) {
        let events: Vec<_> = self.queue.drain(..).collect();
        self.bench.handle(&events);
    }

    fn end(&mut self) {
        let seen = self.dump().map(|_| Link::sample(1, "v1"));
        self.handle_all();
        let generations = self.bench.end(seen.as_slice()).expect("the dump counts");
        self.dumped = None;
        if let (Some(generation), Some(life)) = (generations.first(), self.life) {
            let known = *self.life_of.entry(*generation).or_insert(life);
            assert_eq!(known, life, "generation {generation}");
            let known = *self.generation_of.entry(life).or_insert(*generation);
            assert_eq!(known, *generation, "life {life}");
        }
    }

    fn step(&mut self, step: Step) {
        let is_dumping = self.bench.request.is_some();
        match step {
            Step::Delete => self.delete(),
            Step::Create => {
                self.delete();
                self.lives += 1;
                self.life = Some(self.lives);
                self.queue_event(KernelEvent::Changed(Some(ID)));
            }
            Step::Handle => {
                let event = self.queue.pop_front();
                self.bench.handle(event.as_slice());
            }
            Step::Begin if !is_dumping => {
                self.bench.begin();
            }
            Step::Dump if is_dumping => {
                self.dump();
            }
            Step::End if is_dumping => self.end(),
            Step::Fail if is_dumping => {
                self.dumped = None;
                self.handle_all();
                let err = DumpError::Open(io::ErrorKind::OutOfMemory.into());
                self.bench.fail(err);
            }
            Step::Begin | Step::Dump | Step::End | Step::Fail => {}
        }
    }
}

proptest! {
    #[test]
    fn each_life_of_a_link_has_one_generation(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}
