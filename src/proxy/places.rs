//! How many clients there may be, in all and from one address, and who gives way when all places are taken.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long a new client waits for the place of an idle one that was asked to leave.
const LEAVING: Duration = Duration::from_secs(1);
/// The part of an IPv6 address that a network gives to one customer.
const IPV6_NETWORK: u128 = !0 << 64;

#[derive(Debug)]
pub(super) struct Places {
    per_client: usize,
    served: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    clients: HashMap<IpAddr, Client>,
    /// Connections on which nothing is asked or answered, the one that is idle longest first.
    idle: BTreeMap<u64, Idle>,
    idled: u64,
}

#[derive(Debug, Default)]
struct Client {
    connections: usize,
    /// The numbers of those that are idle.
    idle: BTreeSet<u64>,
}

#[derive(Debug)]
struct Idle {
    client: IpAddr,
    leave: Arc<Notify>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The client has as many connections as one may have.
    Client,
    All,
}

/// One connection among those of its client.
#[derive(Debug)]
struct Guest {
    places: Arc<Places>,
    client: IpAddr,
}

/// A connection that may be served, or has to wait until another one has left.
#[derive(Debug)]
pub(super) struct Ticket {
    guest: Guest,
    permit: Option<OwnedSemaphorePermit>,
}

/// A connection that is served. Dropped, its place is free.
#[derive(Debug)]
pub(super) struct Place {
    guest: Guest,
    /// Its number among the idle ones.
    idle: Mutex<Option<u64>>,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// Of clients above the limits, `turned_away` are told so at one time; further ones are closed without a word.
    pub fn new(max_connections: usize, per_client: usize, turned_away: usize) -> Arc<Self> {
        let served = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        let turned_away = Arc::new(Semaphore::new(turned_away));
        Arc::new(Self { per_client, served, turned_away, book: Mutex::default() })
    }

    /// Lets a connection in. When all places are taken the one that is idle longest is asked to leave; when the client has as
    /// many as one may have, the one of its own.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Ticket, Full> {
        let client = client_of(address);
        let mut book = self.book();
        let mine = book.clients.get(&client).filter(|mine| mine.connections >= self.per_client);
        let own = mine.map(|mine| mine.idle.first().copied().ok_or(Full::Client)).transpose()?;
        let permit = self.served.clone().try_acquire_owned().ok();
        let leaves = match own {
            None if permit.is_none() => {
                Some(book.idle.first_key_value().map(|(first, _)| *first).ok_or(Full::All)?)
            }
            own => own,
        };
        if let Some(idle) = leaves.and_then(|number| book.no_longer_idle(number)) {
            idle.leave.notify_one();
        }
        book.clients.entry(client).or_default().connections += 1;
        Ok(Ticket { guest: Guest { places: self.clone(), client }, permit })
    }

    /// For as long as it is held one more client may be told that it is one too many.
    pub fn turn_away(&self) -> Option<OwnedSemaphorePermit> {
        self.turned_away.clone().try_acquire_owned().ok()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while it was held cannot have left it half changed.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn no_longer_idle(&mut self, number: u64) -> Option<Idle> {
        let idle = self.idle.remove(&number)?;
        if let Some(client) = self.clients.get_mut(&idle.client) {
            client.idle.remove(&number);
        }
        Some(idle)
    }
}

impl Ticket {
    /// The place, when there is one in time.
    pub async fn place(self) -> Result<Place, Full> {
        let permit = match self.permit {
            Some(permit) => permit,
            None => {
                let freed = self.guest.places.served.clone().acquire_owned();
                tokio::time::timeout(LEAVING, freed).await.ok().and_then(Result::ok).ok_or(Full::All)?
            }
        };
        let place =
            Place { guest: self.guest, idle: Mutex::default(), leave: Arc::default(), _permit: permit };
        place.set_idle(true);
        Ok(place)
    }
}

impl Place {
    /// Nothing is asked on the connection, or a request has come.
    pub fn set_idle(&self, idle: bool) {
        let mut book = self.guest.places.book();
        let mut mine = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = mine.take() {
            book.no_longer_idle(before);
        }
        if idle {
            book.idled += 1;
            let number = book.idled;
            let client = self.guest.client;
            book.idle.insert(number, Idle { client, leave: self.leave.clone() });
            book.clients.entry(client).or_default().idle.insert(number);
            *mine = Some(number);
        }
    }

    /// Resolves when a new client needs the place.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.set_idle(false);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut book = self.places.book();
        if let Some(mine) = book.clients.get_mut(&self.client) {
            mine.connections -= 1;
            if mine.connections == 0 {
                book.clients.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the network of an IPv6 address, in which a client chooses freely.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn now<F: Future>(work: F) -> Option<F::Output> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _here = runtime.enter();
        match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn enter(places: &Arc<Places>, address: IpAddr) -> Place {
        now(places.enter(address).unwrap().place()).expect("at once").unwrap()
    }

    #[test]
    fn one_client_has_only_so_many() {
        let places = Places::new(10, 2, 1);
        let busy = |place: Place| {
            place.set_idle(false);
            place
        };
        let first = busy(enter(&places, ONE));
        let _second = busy(enter(&places, ONE));
        assert_eq!(places.enter(ONE).unwrap_err(), Full::Client);
        let _others = enter(&places, OTHER);
        drop(first);
        let _third = busy(enter(&places, ONE));
        assert_eq!(places.enter(ONE).unwrap_err(), Full::Client);
    }

    #[test]
    fn a_client_with_all_that_one_may_have_gives_up_an_idle_one_of_its_own() {
        let places = Places::new(10, 2, 1);
        let (other, first, second) = (enter(&places, OTHER), enter(&places, ONE), enter(&places, ONE));
        let third = enter(&places, ONE);
        assert!(now(first.asked_to_leave()).is_some() && now(second.asked_to_leave()).is_none());
        assert!(now(other.asked_to_leave()).is_none(), "it is another client's, however long it is idle");
        drop((first, second, third));
        assert_eq!(places.book().idle.len(), 1);
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let of = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(of("10.0.0.1"), "10.0.0.1");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::1"), "::");
    }

    #[test]
    fn the_one_that_is_idle_longest_gives_way() {
        let places = Places::new(3, 10, 1);
        let (first, second, third) = (enter(&places, ONE), enter(&places, ONE), enter(&places, ONE));
        first.set_idle(false);
        second.set_idle(true);
        let ticket = places.enter(OTHER).unwrap();
        assert!(now(third.asked_to_leave()).is_some(), "it is idle for longer than the second");
        assert!(now(second.asked_to_leave()).is_none());
        drop(third);
        let _fourth = now(ticket.place()).expect("the place is free").unwrap();
        second.set_idle(false);
        _fourth.set_idle(false);
        assert_eq!(places.enter(OTHER).unwrap_err(), Full::All, "nobody is idle");
        first.set_idle(true);
        assert!(places.enter(OTHER).is_ok());
    }

    #[test]
    fn who_is_turned_away_is_not_counted() {
        let places = Places::new(0, 1, 1);
        assert_eq!(places.enter(ONE).unwrap_err(), Full::All);
        assert!(places.book().clients.is_empty());
    }
}
