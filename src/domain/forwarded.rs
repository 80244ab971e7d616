//! Whose request it is when a proxy stands in front of the server.
//!
//! Owns the one rule: what a peer says of addresses counts only if the peer is trusted, and then only
//! as far back as everyone on the way is. Pure: header lines in, an address out. Never fails, and
//! never reads more of a line than it must, because callers write these lines too.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};

/// Proxies in a row that are followed back; a longer way ends at the last of them.
pub const MAX_HOPS: usize = 32;
/// Bytes that one proxy may say of one hop.
pub const MAX_ELEMENT: usize = 1024;
/// The longest form of an address: IPv6 that holds IPv4, in brackets, with a port.
const MAX_NODE: usize = 64;
/// Bits in front of an IPv4 address that is written as IPv6.
const MAPPED_BITS: u8 = 96;

/// The header that proxies write into. Only one is read: what the proxy does not write itself, it
/// passes on as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses between commas.
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

impl ForwardedHeader {
    /// The header's name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The proxies whose word counts, and where they write it; clones share the list.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    header: ForwardedHeader,
}

impl fmt::Debug for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.networks.iter()).finish()
    }
}

impl TrustedProxies {
    /// Trusts the peers in `networks`, and what they write into `header`.
    #[must_use]
    pub fn new(networks: &[IpNet], header: ForwardedHeader) -> Self {
        Self {
            networks: networks.into(),
            header,
        }
    }

    /// Trusts nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::new(&[], ForwardedHeader::XForwardedFor)
    }

    /// Where the proxies write.
    #[must_use]
    pub const fn header(&self) -> ForwardedHeader {
        self.header
    }

    /// Whether `address` is a proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|it| it.contains(&address))
    }

    /// The address that a request of `peer` counts for. `lines` are the values of the header, in the
    /// order in which they came.
    ///
    /// Each proxy adds, at the end, whom it heard. So the way is walked from the end, over trusted
    /// proxies, to the first who is none. Where someone on it is not named by an address, it is the
    /// proxy that did not name it.
    #[must_use]
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let mut hops = 0;
        for line in lines.rev() {
            let mut left = Some(line);
            while let Some(line) = left {
                let Some((rest, element)) = split_last(line, self.header) else {
                    return client;
                };
                left = rest;
                hops += 1;
                if hops > MAX_HOPS {
                    return client;
                }
                // An empty element means nothing: RFC 9110, 5.6.1.
                if element.is_empty() {
                    continue;
                }
                match address(element, self.header) {
                    None => return client,
                    Some(proxy) if self.trusts(proxy) => client = proxy,
                    Some(other) => return other,
                }
            }
        }
        client
    }
}

/// The network of `text`: an address, or one with a number of bits that covers no other bits.
///
/// One that covers everything is none: everybody would be trusted, and so nobody's address true.
#[must_use]
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    if network.prefix_len() == 0 || network.trunc() != network {
        return None;
    }
    // Peers are compared as what they are, so that one who comes by IPv4 is found however written.
    match (network, network.addr().to_canonical()) {
        (IpNet::V6(_), IpAddr::V4(address)) => {
            let bits = network.prefix_len().checked_sub(MAPPED_BITS)?;
            let network = Ipv4Net::new(address, bits).ok()?;
            (bits > 0).then_some(IpNet::V4(network))
        }
        _ => Some(network),
    }
}

/// What stands before the last element of a line (if anything), and the element. `None` when the end
/// of the line has no form, or is longer than anything that counts.
///
/// From the end, because that is what the nearest proxy wrote: no beginning can spoil it.
fn split_last(line: &[u8], header: ForwardedHeader) -> Option<(Option<&[u8]>, &[u8])> {
    let has_quotes = header == ForwardedHeader::Forwarded;
    let mut quoted = false;
    let floor = line.len().saturating_sub(MAX_ELEMENT);
    for (at, byte) in line.iter().enumerate().skip(floor).rev() {
        match byte {
            b',' if !quoted => {
                let (rest, element) = (line.get(..at)?, line.get(at + 1..)?);
                return Some((Some(rest), element.trim_ascii()));
            }
            // One that is escaped opens nothing, and is part of what is quoted.
            b'"' if has_quotes && !(quoted && is_escaped(line, at)) => quoted = !quoted,
            _ => {}
        }
    }
    (floor == 0 && !quoted).then_some((None, line.trim_ascii()))
}

fn is_escaped(line: &[u8], at: usize) -> bool {
    let before = line.iter().take(at).rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn address(element: &[u8], header: ForwardedHeader) -> Option<IpAddr> {
    match header {
        ForwardedHeader::XForwardedFor => node(element),
        ForwardedHeader::Forwarded => node(&of_pairs(element)?),
    }
}

/// The one value of `for` among the pairs of an element of `Forwarded`.
fn of_pairs(mut element: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    while !element.is_empty() {
        let end = element.iter().position(|byte| matches!(byte, b'=' | b';'));
        let (name, after) = match end.and_then(|at| element.split_at_checked(at)) {
            Some((name, [b'=', after @ ..])) => (name.trim_ascii_start(), after),
            // Between two semicolons there may be nothing.
            Some((name, [_, after @ ..])) if name.trim_ascii().is_empty() => {
                element = after;
                continue;
            }
            _ if element.trim_ascii().is_empty() => break,
            _ => return None,
        };
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
        element = match after.trim_ascii_start() {
            [b';', after @ ..] => after,
            [] => &[],
            _ => return None,
        };
    }
    found
}

/// A token or a quoted string at the start of `text`, and what follows it.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let is_end = |byte: &u8| matches!(byte, b';' | b' ' | b'\t');
        let end = text.iter().position(is_end).unwrap_or(text.len());
        let (token, after) = text.split_at_checked(end)?;
        return (!token.contains(&b'"')).then(|| (token.to_vec(), after));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, quoted.get(at + 1..)?)),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(*byte),
        }
    }
    None
}

/// The address of a hop, whatever its port. `unknown` and names that hide an address have none.
fn node(text: &[u8]) -> Option<IpAddr> {
    if text.len() > MAX_NODE {
        return None;
    }
    let text = str::from_utf8(text).ok()?;
    let address = if let Some(text) = text.strip_prefix('[') {
        let (address, port) = text.split_once(']')?;
        let good = port.is_empty() || is_port(port.strip_prefix(':')?);
        IpAddr::V6(address.parse::<Ipv6Addr>().ok().filter(|_| good)?)
    } else if let Ok(address) = text.parse() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::V4(address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

/// A port, or a name that hides one.
fn is_port(text: &str) -> bool {
    let is_hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(is_hidden),
        None => text.len() <= 5 && text.parse::<u16>().is_ok() && !text.starts_with('+'),
    }
}

#[cfg(test)]
mod tests;
