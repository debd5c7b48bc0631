//! The threads of a protocol, shared fairly: those that wait take turns, and the slow requests of one client, or of
//! one model, leave some threads to others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use session_group::{Code, Error, Result};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// A client: a connection, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client(pub u64);

/// The threads of a protocol, one for each request that is computed, and the requests that wait for one.
pub struct Lane {
    pub name: &'static str,
    threads: usize,
    /// How many more compute that are the first of their model, and how many that are the first of their client.
    more: usize,
    most_waiting: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By `Place`.
    taken: [usize; 3],
    /// Those that compute.
    of_client: HashMap<Client, usize>,
    of_model: HashMap<Arc<str>, usize>,
    /// Those that wait, in the order in which they came.
    waiting: HashMap<Asker, BTreeMap<u64, oneshot::Sender<Thread>>>,
    /// Whose turn it is.
    turns: VecDeque<Asker>,
    number: usize,
    number_of_client: HashMap<Client, usize>,
    next: u64,
}

/// Requests of one client to one model wait for each other, but not for those of others.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asker {
    client: Client,
    model: Arc<str>,
}

/// Among which threads one is.
#[derive(Clone, Copy)]
enum Place {
    Any,
    FirstOfModel,
    FirstOfClient,
}

/// A thread, for as long as this is kept.
pub struct Thread {
    lane: Arc<Lane>,
    asker: Asker,
    place: Place,
}

impl Lane {
    pub fn new(name: &'static str, threads: usize, most_waiting: usize) -> Arc<Self> {
        let more = (threads / 4).max(1);
        Arc::new(Self { name, threads, more, most_waiting, state: Mutex::default() })
    }

    /// How many requests compute at a time at most.
    pub fn most(&self) -> usize {
        self.threads + 2 * self.more
    }

    /// Waits for a thread. A future that is dropped waits no more.
    pub async fn thread(
        self: &Arc<Self>,
        client: Client,
        model: &str,
        metrics: &Metrics,
    ) -> Result<Thread> {
        let asker = Asker { client, model: model.into() };
        let waiting = {
            let mut state = self.lock();
            if let Some(place) = self.place(&state, &asker) {
                return Ok(self.take(&mut state, asker, place));
            }
            // The last quarter is kept for clients of which none waits yet.
            let kept = match state.number_of_client.contains_key(&client) {
                true => self.most_waiting / 4,
                false => 0,
            };
            if state.number >= self.most_waiting - kept {
                return Err(Error::new(
                    Code::ResourceExhausted,
                    format!(
                        "{} requests wait already: send fewer at a time, or let more wait with \
                         --max_waiting_requests",
                        state.number
                    ),
                ));
            }
            let (give, given) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            state.number += 1;
            *state.number_of_client.entry(client).or_default() += 1;
            if !state.waiting.contains_key(&asker) {
                state.turns.push_back(asker.clone());
            }
            state.waiting.entry(asker.clone()).or_default().insert(number, give);
            metrics.waiting.inc();
            Waiting { lane: self, metrics, asker, number, given }
        };
        waiting.given().await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, state: &State, asker: &Asker) -> Option<Place> {
        let has = |place: Place, most| state.taken[place as usize] < most;
        if has(Place::Any, self.threads) {
            Some(Place::Any)
        } else if has(Place::FirstOfModel, self.more) && !state.of_model.contains_key(&asker.model)
        {
            Some(Place::FirstOfModel)
        } else if has(Place::FirstOfClient, self.more)
            && !state.of_client.contains_key(&asker.client)
        {
            Some(Place::FirstOfClient)
        } else {
            None
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, asker: Asker, place: Place) -> Thread {
        state.taken[place as usize] += 1;
        *state.of_client.entry(asker.client).or_default() += 1;
        *state.of_model.entry(asker.model.clone()).or_default() += 1;
        Thread { lane: self.clone(), asker, place }
    }

    /// Whose turn it is, and which thread it gets.
    fn turn(&self, state: &State) -> Option<(usize, Place)> {
        /// Far more may wait than can be looked at each time. Their turn comes.
        const LOOK_AT: usize = 64;
        let mut turns = state.turns.iter().take(LOOK_AT).enumerate();
        turns.find_map(|(at, asker)| Some((at, self.place(state, asker)?)))
    }

    /// Gives threads to those that wait, as far as there are any.
    fn give(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut lost = Vec::new();
        while let Some((at, place)) = self.turn(&state) {
            let Some(asker) = state.turns.remove(at) else { break };
            let Some(own) = state.waiting.get_mut(&asker) else { continue };
            let first = own.pop_first();
            match own.is_empty() {
                true => drop(state.waiting.remove(&asker)),
                false => state.turns.push_back(asker.clone()),
            }
            let Some((_, give)) = first else { continue };
            state.no_longer_waits(asker.client);
            let thread = self.take(&mut state, asker, place);
            lost.extend(give.send(thread).err());
        }
        drop(state);
        // Each of them gives its thread to the next, for which the lock must be free.
        drop(lost);
    }
}

impl State {
    fn no_longer_waits(&mut self, client: Client) {
        self.number -= 1;
        less(&mut self.number_of_client, &client);
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        state.taken[self.place as usize] -= 1;
        less(&mut state.of_client, &self.asker.client);
        less(&mut state.of_model, &self.asker.model);
        self.lane.give(state);
    }
}

/// A request that waits for a thread.
struct Waiting<'a> {
    lane: &'a Lane,
    metrics: &'a Metrics,
    asker: Asker,
    number: u64,
    given: oneshot::Receiver<Thread>,
}

impl Waiting<'_> {
    async fn given(mut self) -> Result<Thread> {
        let ending = |_| Error::new(Code::Unavailable, "the server is ending");
        (&mut self.given).await.map_err(ending)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting.dec();
        let mut state = self.lane.lock();
        let Some(own) = state.waiting.get_mut(&self.asker) else { return };
        if own.remove(&self.number).is_none() {
            return;
        }
        let is_last = own.is_empty();
        state.no_longer_waits(self.asker.client);
        if is_last {
            state.waiting.remove(&self.asker);
            state.turns.retain(|asker| *asker != self.asker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn others_are_not_starved_and_take_turns() {
        let (lane, metrics) = (Lane::new("GRPC", 2, 5), Metrics::default());
        let ask =
            |client, model: &'static str| Box::pin(lane.thread(Client(client), model, &metrics));
        let now = |client, model| poll(ask(client, model).as_mut()).unwrap().unwrap();
        let slow = [now(1, "slow"), now(1, "slow")];
        let mut third = ask(1, "slow");
        assert!(poll(third.as_mut()).is_none());
        // The first of its model, and the first of its client; then there is no more.
        let (other, another) = (now(1, "fast"), now(2, "slow"));
        let mut waits = [ask(1, "slow"), ask(3, "slow"), ask(1, "fast")];
        assert!(waits.iter_mut().all(|wait| poll(wait.as_mut()).is_none()));
        let mut fifth = ask(4, "fast");
        assert!(poll(fifth.as_mut()).is_none());
        assert!(poll(ask(5, "more").as_mut()).unwrap().is_err());
        assert_eq!(metrics.waiting.get(), 5);
        drop(fifth);
        // By turns: client 1 waits first, and then for client 3 and for its own other model.
        let [a, b] = slow;
        drop(a);
        let third = poll(third.as_mut()).unwrap().unwrap();
        assert!(waits.iter_mut().all(|wait| poll(wait.as_mut()).is_none()));
        drop(b);
        let given = |wait: &mut _| poll(std::pin::Pin::as_mut(wait)).map(Result::unwrap);
        assert!(given(&mut waits[0]).is_none());
        let of_other_client = given(&mut waits[1]).unwrap();
        drop(third);
        assert!(given(&mut waits[0]).is_none());
        let of_other_model = given(&mut waits[2]).unwrap();
        drop((other, another, of_other_client, of_other_model));
        drop(given(&mut waits[0]).unwrap());
        drop(waits);
        let state = lane.lock();
        assert_eq!((state.taken, state.number), ([0; 3], 0));
        assert!(state.of_client.is_empty() && state.of_model.is_empty() && state.turns.is_empty());
        assert!(state.number_of_client.is_empty());
        drop(state);
        assert_eq!(metrics.waiting.get(), 0);
    }

    #[test]
    fn one_client_does_not_take_all_places_to_wait() {
        let (lane, metrics) = (Lane::new("GRPC", 1, 8), Metrics::default());
        let ask = |client| Box::pin(lane.thread(Client(client), "slow", &metrics));
        let now = |client| poll(ask(client).as_mut()).unwrap();
        let first = now(1).unwrap();
        let mut waits: Vec<_> = (0..6).map(|_| ask(1)).collect();
        assert!(waits.iter_mut().all(|wait| poll(wait.as_mut()).is_none()));
        assert!(now(1).is_err());
        // One of each of these may wait.
        let second = now(2).unwrap();
        let mut others = [2, 3].map(ask);
        assert!(others.iter_mut().all(|wait| poll(wait.as_mut()).is_none()));
        assert!(now(2).is_err() && now(4).is_err());
        drop(waits.pop());
        let mut fourth = ask(4);
        assert!(now(1).is_err() && poll(fourth.as_mut()).is_none());
        drop((fourth, others, waits));
        assert!(lane.lock().number_of_client.is_empty());
        drop((first, second));
    }
}
