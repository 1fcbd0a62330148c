//! What waits for one client: the newest status of each user, up to a size. What does not fit is not lost: the client gets its
//! whole list again, read anew and page by page, as it does at the beginning. So a client that does not keep up costs the same
//! however much happens meanwhile.

use std::collections::BTreeMap;

use crate::model::UserId;
use crate::wire::update::{MESSAGE_BYTES, Shown};

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    pending: BTreeMap<UserId, Shown>,
    bytes: usize,
    max: usize,
    listing: Option<Place>,
    /// The first page is being read, so it may lack what was missed meanwhile.
    is_begun: bool,
    /// The list has to be sent once more when this time is through.
    again: bool,
}

/// How far the list was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Start,
    After(UserId),
}

/// What the client is to get next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The list's entries after this one: read them and tell [`Buffer::page`].
    Page(Option<UserId>),
    /// These.
    Events(Vec<(UserId, Shown)>),
    /// Nothing for now.
    Nothing,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// It took the place of an older one.
    Coalesced,
    /// There was no room: all that waited is read anew.
    Overflowed,
}

impl Buffer {
    /// For a client that knows nothing yet. At most `max` bytes wait.
    pub(super) fn new(max: usize) -> Self {
        Self { pending: BTreeMap::new(), bytes: 0, max, listing: Some(Place::Start), is_begun: false, again: false }
    }

    /// Keeps an update.
    pub(super) fn put(&mut self, of: &UserId, shown: Shown) -> Put {
        self.bytes += shown.size(of);
        let older = self.pending.insert(of.clone(), shown);
        self.bytes -= older.as_ref().map_or(0, |older| older.size(of));
        if self.bytes > self.max {
            self.pending.clear();
            self.bytes = 0;
            self.relist();
            return Put::Overflowed;
        }
        if older.is_some() { Put::Coalesced } else { Put::Kept }
    }

    /// The client gets its list (again): something may have been missed.
    pub(super) fn relist(&mut self) {
        match self.listing {
            None => self.listing = Some(Place::Start),
            Some(Place::Start) if !self.is_begun => {}
            // To begin anew at once might never get to the end.
            Some(_) => self.again = true,
        }
    }

    /// What to send.
    pub(super) fn next(&mut self) -> Next {
        match &self.listing {
            Some(Place::Start) => {
                self.is_begun = true;
                return Next::Page(None);
            }
            Some(Place::After(place)) => return Next::Page(Some(place.clone())),
            None => {}
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE_BYTES
            && let Some((of, shown)) = self.pending.pop_first()
        {
            bytes += shown.size(&of);
            events.push((of, shown));
        }
        self.bytes -= bytes;
        if events.is_empty() { Next::Nothing } else { Next::Events(events) }
    }

    /// The page that [`Buffer::next`] asked for, the list's last if `is_last`; returns what to send. What came over the bus since
    /// is newer than what was read.
    pub(super) fn page(&mut self, read: Vec<(UserId, Shown)>, is_last: bool) -> Vec<(UserId, Shown)> {
        self.is_begun = false;
        self.listing = match read.last() {
            Some((last, _)) if !is_last => Some(Place::After(last.clone())),
            _ => std::mem::take(&mut self.again).then_some(Place::Start),
        };
        let newest = |(of, shown): (UserId, Shown)| match self.pending.remove(&of) {
            Some(newer) => {
                self.bytes -= newer.size(&of);
                (of, newer)
            }
            None => (of, shown),
        };
        read.into_iter().map(newest).collect()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Status, Timestamp};

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("@u{n:04}:b.example")).unwrap()
    }

    fn shown(text: &str) -> Shown {
        let status = Status { status_msg: Some(text.into()), ..Status::default() };
        Shown { status, known_at: Timestamp(0) }
    }

    /// A buffer whose client has its list.
    fn caught_up(max: usize) -> Buffer {
        let mut buffer = Buffer::new(max);
        assert_eq!(buffer.next(), Next::Page(None));
        assert_eq!(buffer.page(vec![], true), []);
        assert_eq!(buffer.next(), Next::Nothing);
        buffer
    }

    #[test]
    fn the_newest_of_each_user_waits() {
        let mut buffer = caught_up(1 << 20);
        assert_eq!(buffer.put(&user(1), shown("old")), Put::Kept);
        assert_eq!(buffer.put(&user(2), shown("x")), Put::Kept);
        assert_eq!(buffer.put(&user(1), shown("new")), Put::Coalesced);
        assert_eq!(buffer.next(), Next::Events(vec![(user(1), shown("new")), (user(2), shown("x"))]));
        assert_eq!((buffer.bytes(), buffer.next()), (0, Next::Nothing));
    }

    #[test]
    fn what_came_meanwhile_is_newer_than_what_was_read() {
        let mut buffer = Buffer::new(1 << 20);
        assert_eq!(buffer.next(), Next::Page(None));
        buffer.put(&user(1), shown("new"));
        buffer.put(&user(3), shown("later"));
        let page = buffer.page(vec![(user(1), shown("old")), (user(2), shown("x"))], false);
        assert_eq!(page, [(user(1), shown("new")), (user(2), shown("x"))]);
        assert_eq!(buffer.next(), Next::Page(Some(user(2))));
        assert_eq!(buffer.page(vec![(user(3), shown("old"))], true), [(user(3), shown("later"))]);
        assert_eq!((buffer.bytes(), buffer.next()), (0, Next::Nothing));
    }

    #[test]
    fn what_does_not_fit_is_read_anew() {
        let mut buffer = caught_up(10_000);
        let puts: Vec<_> = (0..1_000).map(|n| buffer.put(&user(n), shown("x"))).collect();
        assert!(puts.contains(&Put::Overflowed) && buffer.bytes() <= 10_000);
        assert_eq!(buffer.next(), Next::Page(None));
    }

    /// What was missed while the first page was being read may be newer than that page.
    #[test]
    fn a_list_that_overflows_while_its_beginning_is_read_is_sent_once_more() {
        let mut buffer = caught_up(10_000);
        buffer.relist();
        assert_eq!(buffer.next(), Next::Page(None));
        let puts: Vec<_> = (0..1_000).map(|n| buffer.put(&user(n), shown("new"))).collect();
        assert!(puts.contains(&Put::Overflowed));
        buffer.page(vec![(user(1), shown("old"))], true);
        assert_eq!(buffer.next(), Next::Page(None));
        buffer.page(vec![(user(1), shown("new"))], true);
        assert!(!matches!(buffer.next(), Next::Page(_)), "and that is all");
    }

    /// A client that reads slower than things change gets to the end of its list all the same.
    #[test]
    fn a_list_that_overflows_again_is_sent_to_its_end_first() {
        let mut buffer = caught_up(10_000);
        buffer.relist();
        buffer.page(vec![(user(1), shown("x"))], false);
        let puts: Vec<_> = (0..1_000).map(|n| buffer.put(&user(n), shown("y"))).collect();
        assert!(puts.contains(&Put::Overflowed));
        assert_eq!(buffer.next(), Next::Page(Some(user(1))));
        buffer.page(vec![(user(2), shown("x"))], true);
        assert_eq!(buffer.next(), Next::Page(None), "and then once more");
        buffer.page(vec![(user(1), shown("x")), (user(2), shown("x"))], true);
        assert!(matches!(buffer.next(), Next::Events(_)));
    }
}
