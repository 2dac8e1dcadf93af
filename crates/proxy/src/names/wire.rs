//! DNS messages, as far as a server needs them that answers with addresses and passes the rest on (RFC 1035, EDNS of
//! RFC 6891). A question is read with bounds everywhere; everything else is passed on unread.

use std::net::IpAddr;

const HEADER: usize = 12;
/// What fits into a datagram where the asker does not say.
const SMALLEST_ROOM: usize = 512;
const LONGEST_NAME: usize = 253;
/// Seconds for which an answer holds: addresses of hosts stay, those of endpoints may not.
const TTL: u32 = 10;
/// Seconds for which it holds that there is nothing.
const NEGATIVE_TTL: u32 = 5;

const A: u16 = 1;
const SOA: u16 = 6;
const OPT: u16 = 41;
const AAAA: u16 = 28;
const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// The message cannot be understood.
pub(super) const FORMAT_ERROR: u8 = 1;
/// No name server answers.
pub(super) const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// What is asked.
#[derive(Debug, PartialEq)]
pub(super) struct Question {
    /// The name, lower case, without the last dot.
    pub(super) name: String,
    kind: u16,
    class: u16,
    /// Where the question ends.
    end: usize,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// These addresses, as far as they are of the kind that is asked for.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

impl Question {
    /// Reads the question of a query, or tells the code of what is wrong.
    pub(super) fn read(message: &[u8]) -> Result<Self, u8> {
        let read = || {
            let flags = *message.get(2)?;
            let (is_query, operation) = (flags & 0x80 == 0, flags >> 3 & 0xf);
            if !is_query || operation != 0 || number(message, 4)? != 1 {
                return None;
            }
            let (name, end) = name(message, HEADER)?;
            let (kind, class) = (number(message, end)?, number(message, end + 2)?);
            Some(Self { name, kind, class, end: end + 4 })
        };
        read().ok_or(FORMAT_ERROR)
    }

    /// The answer to `message`, of which this is the question.
    pub(super) fn answer(&self, message: &[u8], answer: &Answer) -> Vec<u8> {
        let mut text = head(message, self.end, 0);
        let mut records: u16 = 0;
        if let (Answer::Addresses(addresses), INTERNET) = (answer, self.class) {
            for address in addresses.iter().filter(|address| self.asks_for(address)) {
                record(&mut text, if address.is_ipv4() { A } else { AAAA }, TTL);
                match address {
                    IpAddr::V4(v4) => text.extend([&[0, 4][..], &v4.octets()].concat()),
                    IpAddr::V6(v6) => text.extend([&[0, 16][..], &v6.octets()].concat()),
                }
                records += 1;
            }
        }
        put(&mut text, 6, records);
        if records == 0 {
            negative(&mut text);
        }
        if let (Answer::NoSuchName, Some(flags)) = (answer, text.get_mut(3)) {
            *flags |= NO_SUCH_NAME;
        }
        text
    }

    fn asks_for(&self, address: &IpAddr) -> bool {
        match self.kind {
            ANY => true,
            A => address.is_ipv4(),
            AAAA => address.is_ipv6(),
            _ => false,
        }
    }
}

/// The name at `at`, without compression, and where it ends. Labels that are no host name's do not matter here.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        let label = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        match length {
            0 => return Some((name, at)),
            // A question has nothing before it to point at.
            64.. => return None,
            _ => {}
        }
        if !name.is_empty() {
            name.push('.');
        }
        // A dot inside of a label must not look like one between two.
        name.extend(label.iter().map(|byte| match byte {
            b'!'..=b'~' if *byte != b'.' => char::from(byte.to_ascii_lowercase()),
            _ => '\u{fffd}',
        }));
        if name.len() > LONGEST_NAME {
            return None;
        }
    }
}

/// The head of an answer to `message`, with its question.
fn head(message: &[u8], end: usize, code: u8) -> Vec<u8> {
    let mut text: Vec<u8> = message.iter().copied().take(end.max(HEADER)).collect();
    text.resize(text.len().max(HEADER), 0);
    if let [_, _, first, second, ..] = text.as_mut_slice() {
        // A response, authoritative, recursion as desired; recursion is available.
        *first = 0x84 | *first & 0x79;
        *second = 0x80 | code;
    }
    for at in [6, 8, 10] {
        put(&mut text, at, 0);
    }
    text
}

fn put(text: &mut [u8], at: usize, value: u16) {
    if let Some(place) = text.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The beginning of a record about the question's name.
fn record(text: &mut Vec<u8>, kind: u16, ttl: u32) {
    const POINTER: u16 = 0xc000 | HEADER as u16;
    text.extend(POINTER.to_be_bytes());
    text.extend(kind.to_be_bytes());
    text.extend(INTERNET.to_be_bytes());
    text.extend(ttl.to_be_bytes());
}

/// For how long it holds that there is nothing.
fn negative(text: &mut Vec<u8>) {
    record(text, SOA, NEGATIVE_TTL);
    let numbers = [1, 3600, 600, 86400, NEGATIVE_TTL];
    // Neither a primary server nor somebody responsible: two empty names.
    let data: Vec<u8> = [0, 0].into_iter().chain(numbers.into_iter().flat_map(u32::to_be_bytes)).collect();
    text.extend([0, data.len() as u8]);
    text.extend(data);
    put(text, 8, 1);
}

/// The answer to a message that cannot be answered.
pub(super) fn failure(message: &[u8], code: u8) -> Vec<u8> {
    match Question::read(message) {
        Ok(question) => head(message, question.end, code),
        Err(_) => {
            let mut text = head(message, HEADER, code);
            put(&mut text, 4, 0);
            text
        }
    }
}

/// How long an answer to `message` may be in a datagram.
pub(super) fn room(message: &[u8]) -> usize {
    let said = || {
        let question = Question::read(message).ok()?;
        let more = number(message, 6)? == 0 && number(message, 8)? == 0 && number(message, 10)? > 0;
        // It has the root's name; clients put it right behind the question.
        let is_said = more && *message.get(question.end)? == 0 && number(message, question.end + 1)? == OPT;
        is_said.then(|| number(message, question.end + 3)).flatten()
    };
    said().map_or(SMALLEST_ROOM, usize::from).clamp(SMALLEST_ROOM, 4096)
}

/// The answer, or, when there is no room for it, its head with word that it was cut.
pub(super) fn fit(answer: Vec<u8>, room: usize) -> Vec<u8> {
    if answer.len() <= room {
        return answer;
    }
    let mut end = HEADER;
    while let Some(length) = answer.get(end).filter(|length| **length != 0 && **length < 64) {
        end += 1 + usize::from(*length);
    }
    let mut short: Vec<u8> = answer.iter().copied().take(end + 5).collect();
    if let Some(flags) = short.get_mut(2) {
        *flags |= 2;
    }
    for at in [6, 8, 10] {
        put(&mut short, at, 0);
    }
    short
}

/// A question for the addresses of `name`.
pub(super) fn query(id: u16, name: &str, is_v6: bool) -> Option<Vec<u8>> {
    let mut text = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        text.push(length);
        text.extend(label.as_bytes());
    }
    text.push(0);
    text.extend(if is_v6 { AAAA } else { A }.to_be_bytes());
    text.extend(INTERNET.to_be_bytes());
    Some(text)
}

/// The addresses in an answer; `None` when it is none, or tells of a failure.
pub(super) fn addresses(answer: &[u8]) -> Option<Vec<IpAddr>> {
    if answer.get(3)? & 0xf != 0 {
        return None;
    }
    let mut at = HEADER;
    for _ in 0..number(answer, 4)? {
        at = skip_name(answer, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..number(answer, 6)? {
        at = skip_name(answer, at)?;
        let (kind, length) = (number(answer, at)?, usize::from(number(answer, at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        match kind {
            A => found.extend(<[u8; 4]>::try_from(data).ok().map(IpAddr::from)),
            AAAA => found.extend(<[u8; 16]>::try_from(data).ok().map(IpAddr::from)),
            _ => {}
        }
        at += 10 + length;
    }
    Some(found)
}

/// Where the name at `at` ends, compressed or not.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            192.. => return Some(at + 2),
            64.. => return None,
            length => at += 1 + length,
        }
    }
}

/// Whether `answer` is one to `message`.
pub(super) fn is_answer(answer: &[u8], message: &[u8]) -> bool {
    let question = |text: &[u8]| {
        let (name, end) = name(text, HEADER)?;
        Some((name, number(text, end)?, number(text, end + 2)?))
    };
    answer.len() >= HEADER
        && answer.get(..2) == message.get(..2)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && (number(answer, 4) == Some(0) || question(answer) == question(message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(240, 240, 0, 5));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn code(answer: &[u8]) -> u8 {
        answer[3] & 0xf
    }

    #[test]
    fn a_question_is_answered_with_addresses_of_its_kind() {
        for (is_v6, expected) in [(false, V4), (true, V6)] {
            let message = query(7, "Reviews.Default", is_v6).unwrap();
            let question = Question::read(&message).unwrap();
            assert_eq!(question.name, "reviews.default");
            let answer = question.answer(&message, &Answer::Addresses(vec![V4, V6]));
            assert!(is_answer(&answer, &message));
            assert_eq!(addresses(&answer), Some(vec![expected]));
        }
    }

    #[test]
    fn a_name_without_addresses_of_the_kind_is_not_one_that_is_not_there() {
        let message = query(7, "reviews", true).unwrap();
        let question = Question::read(&message).unwrap();
        let none = question.answer(&message, &Answer::Addresses(vec![V4]));
        assert_eq!((code(&none), addresses(&none)), (0, Some(vec![])));
        let absent = question.answer(&message, &Answer::NoSuchName);
        assert_eq!((code(&absent), addresses(&absent)), (NO_SUCH_NAME, None));
        for answer in [none, absent] {
            assert_eq!(number(&answer, 8), Some(1), "it is told for how long that holds");
        }
    }

    #[test]
    fn what_has_no_room_is_cut_and_keeps_its_question() {
        let mut message = query(7, "db", false).unwrap();
        assert_eq!(room(&message), 512);
        let question = Question::read(&message).unwrap();
        let answer = question.answer(&message, &Answer::Addresses(vec![V4; 100]));
        let short = fit(answer.clone(), 512);
        assert_eq!(short[2] & 2, 2);
        assert!(is_answer(&short, &message) && addresses(&short) == Some(vec![]));
        assert_eq!(fit(answer.clone(), 4096), answer);
        // An OPT record says that there is room for 1232 bytes.
        message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        put(&mut message, 10, 1);
        assert_eq!(room(&message), 1232);
    }

    #[test]
    fn nonsense_is_refused_without_harm() {
        let message = query(7, "reviews.default", false).unwrap();
        for length in 0..message.len() {
            let cut = &message[..length];
            assert_eq!(Question::read(cut), Err(FORMAT_ERROR));
            let answer = failure(cut, FORMAT_ERROR);
            assert_eq!((code(&answer), number(&answer, 4)), (FORMAT_ERROR, Some(0)));
            let _ = (room(cut), addresses(cut), is_answer(cut, &message), fit(cut.to_vec(), 1));
        }
        let mut pointing = message.clone();
        pointing[HEADER] = 0xc0;
        assert_eq!(Question::read(&pointing), Err(FORMAT_ERROR));
        let mut dotted = query(7, "a", false).unwrap();
        dotted[HEADER + 1] = b'.';
        assert_eq!(Question::read(&dotted).unwrap().name, "\u{fffd}");
        assert_eq!(query(7, "a..b", false), None);
    }
}
