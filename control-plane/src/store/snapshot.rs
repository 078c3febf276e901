//! Routing data in memory: immutable, shared, read by the call thread without waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use trunkline_sip::offer_answer::SrtpPolicy;

use crate::credential::Credential;
use crate::party::{EarlyMedia, PartyAudio, RecordCalls};
use crate::pin::PinHash;
use crate::site::{
    Availability, E164, Extension, Forwards, Group, InterfaceName, Name, Route, SipUser, Strategy,
};
use crate::trunk::policy::Dialled;
use crate::trunk::{MemberOutbound, TenantOutbound, TrunkSettings};

/// Everything that routing needs to know of the store at one moment.
#[derive(Debug, Default)]
pub struct RoutingSnapshot {
    /// By family and prefix length, the longest first; within one length networks are disjoint,
    /// so one look-up by the masked address decides.
    sources: Vec<SourceTable>,
    dids: HashMap<E164, DidRoute>,
    members: HashMap<(Name, Extension), Arc<MemberRoute>>,
    sip_users: HashMap<SipUser, Arc<MemberRoute>>,
    conferences: HashMap<E164, Arc<ConferenceRoute>>,
    groups: HashMap<(Name, Extension), Arc<GroupRoute>>,
    group_dids: HashMap<E164, Arc<GroupRoute>>,
    /// By tenant.
    sounds: HashMap<Name, TenantSounds>,
    trunks: BTreeMap<Name, Arc<TrunkRoute>>,
    /// What each tenant's members may call.
    outbound: HashMap<Name, Arc<TenantOutbound>>,
    /// By tenant, the longest prefix first.
    routes: HashMap<Name, Vec<Route>>,
}

#[derive(Debug)]
struct SourceTable {
    prefix_len: u8,
    is_ipv4: bool,
    trunks: HashMap<IpNet, Arc<TrunkRoute>>,
}

/// A trunk as routing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkRoute {
    /// Its name.
    pub name: Name,
    /// Whose numbers it delivers.
    pub tenant: Name,
    /// Networks its requests come from.
    pub sources: Vec<IpNet>,
    /// Whether its media is protected.
    pub srtp: SrtpPolicy,
    /// Networks its media may come from beside the address in its SDP; at most
    /// [`trunkline_edge_api::SourceNetworks::LEN_MAX`].
    pub media_from: Vec<IpNet>,
    /// Our media address towards it; `None`: the first of the family that fits.
    pub media: Option<InterfaceName>,
    /// How its audio and digits are treated.
    pub audio: PartyAudio,
    /// Where calls to it go, and how.
    pub settings: TrunkSettings,
}

/// A member as routing and the registrar see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRoute {
    /// Tenant of the member.
    pub tenant: Name,
    /// Number within the tenant.
    pub extension: Extension,
    /// Display name.
    pub name: String,
    /// Digest user name and user part of the address-of-record.
    pub sip_user: SipUser,
    /// What the phone's digest is checked against.
    pub credential: Credential,
    /// Where calls may go when the phone cannot take them.
    pub forward_number: Option<E164>,
    /// Where they go instead, as the member chose it or else the site file.
    pub forwards: Forwards,
    /// Whether calls ring the phone.
    pub availability: Availability,
    /// Whether the phone's media is protected.
    pub srtp: SrtpPolicy,
    /// Our media address towards the phone; `None`: the first of the family that fits.
    pub media: Option<InterfaceName>,
    /// How the phone's audio and digits are treated.
    pub audio: PartyAudio,
    /// What the member may call.
    pub outbound: MemberOutbound,
    /// Its DIDs; filled in by [`RoutingSnapshot::new`].
    pub numbers: Vec<E164>,
}

/// Who answers a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DidRoute {
    /// The number.
    pub number: E164,
    /// Tenant of the number.
    pub tenant: Name,
    /// Who answers.
    pub member: Arc<MemberRoute>,
    /// Whether its calls are recorded.
    pub record: RecordCalls,
    /// Its calls at one time.
    pub channels_max: Option<u32>,
    /// What its callers hear before the answer; `None`: as the tenant says.
    pub early_media: Option<EarlyMedia>,
}

/// Members that ring for one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRoute {
    /// Whose it is.
    pub tenant: Name,
    /// Its name within the tenant.
    pub name: Name,
    /// In the order in which they are rung.
    pub members: Vec<Arc<MemberRoute>>,
    /// Who rings when.
    pub strategy: Strategy,
    /// How long each round rings, seconds.
    pub ring_secs: u16,
    /// Whether a member in a call is left out.
    pub skip_busy: bool,
}

/// What a tenant's callers hear while nobody speaks to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantSounds {
    /// While they are held: a file under `[media] prompts_dir`.
    pub hold_music: Option<String>,
    /// Before the answer.
    pub early_media: EarlyMedia,
    /// What that is where the edge plays it: a file, or `tone:…`.
    pub ringback: Option<String>,
}

/// A conference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConferenceRoute {
    /// Whose it is.
    pub tenant: Name,
    /// Its name within the tenant.
    pub name: Name,
    /// Its number.
    pub did: E164,
    /// What callers have to enter.
    pub pin: Option<PinHash>,
    /// Whether a tone tells that somebody comes or goes.
    pub announce: bool,
    /// Whether who joins is not heard until an operator says so.
    pub join_muted: bool,
    /// Whether what is said is recorded.
    pub record: RecordCalls,
}

impl RoutingSnapshot {
    /// Builds the look-up tables. A DID whose member is missing is left out; the store's foreign
    /// keys rule that out.
    #[must_use]
    pub fn new(
        trunks: Vec<TrunkRoute>,
        members: Vec<MemberRoute>,
        dids: Vec<(E164, Name, Extension)>,
    ) -> Self {
        let mut snapshot = Self::default();
        for trunk in trunks.into_iter().map(Arc::new) {
            for source in &trunk.sources {
                snapshot.add_source(*source, &trunk);
            }
            snapshot.trunks.insert(trunk.name.clone(), trunk);
        }
        snapshot
            .sources
            .sort_by_key(|table| std::cmp::Reverse(table.prefix_len));
        let mut numbers: HashMap<(Name, Extension), Vec<E164>> = HashMap::new();
        for (number, tenant, extension) in &dids {
            let owner = (tenant.clone(), extension.clone());
            numbers.entry(owner).or_default().push(number.clone());
        }
        for mut member in members {
            let key = (member.tenant.clone(), member.extension.clone());
            member.numbers = numbers.remove(&key).unwrap_or_default();
            let member = Arc::new(member);
            snapshot
                .sip_users
                .insert(member.sip_user.clone(), Arc::clone(&member));
            snapshot.members.insert(key, member);
        }
        for (number, tenant, extension) in dids {
            if let Some(member) = snapshot.members.get(&(tenant.clone(), extension)) {
                let route = DidRoute {
                    number: number.clone(),
                    tenant,
                    member: Arc::clone(member),
                    record: RecordCalls::Never,
                    channels_max: None,
                    early_media: None,
                };
                snapshot.dids.insert(number, route);
            }
        }
        snapshot
    }

    /// Adds conferences, each under its number.
    #[must_use]
    pub fn with_conferences(mut self, conferences: Vec<ConferenceRoute>) -> Self {
        let routes = conferences.into_iter().map(Arc::new);
        self.conferences = routes.map(|route| (route.did.clone(), route)).collect();
        self
    }

    /// Adds groups, each under its extension and numbers. A member that is missing is left out.
    #[must_use]
    pub fn with_groups(mut self, groups: Vec<Group>) -> Self {
        for group in groups {
            let members = group.members.iter().filter_map(|extension| {
                let member = self.member(&group.tenant, extension)?;
                Some(Arc::clone(member))
            });
            let route = Arc::new(GroupRoute {
                members: members.collect(),
                tenant: group.tenant.clone(),
                name: group.name,
                strategy: group.strategy,
                ring_secs: group.ring_secs,
                skip_busy: group.skip_busy,
            });
            if let Some(extension) = group.extension {
                let key = (group.tenant, extension);
                self.groups.insert(key, Arc::clone(&route));
            }
            for did in group.dids {
                self.group_dids.insert(did, Arc::clone(&route));
            }
        }
        self
    }

    /// Adds what tenants have their callers hear.
    #[must_use]
    pub fn with_sounds(mut self, sounds: HashMap<Name, TenantSounds>) -> Self {
        self.sounds = sounds;
        self
    }

    /// Has the callers of `number` hear this before the answer.
    #[must_use]
    pub fn with_early_media(mut self, number: &E164, early_media: EarlyMedia) -> Self {
        if let Some(did) = self.dids.get_mut(number) {
            did.early_media = Some(early_media);
        }
        self
    }

    /// Adds what tenants' members may call, and through which trunks.
    #[must_use]
    pub fn with_outbound(
        mut self,
        outbound: Vec<(Name, TenantOutbound)>,
        routes: Vec<Route>,
    ) -> Self {
        let outbound = outbound.into_iter();
        self.outbound = outbound.map(|(name, it)| (name, Arc::new(it))).collect();
        for route in routes {
            self.routes
                .entry(route.tenant.clone())
                .or_default()
                .push(route);
        }
        for routes in self.routes.values_mut() {
            routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        }
        self
    }

    /// Limits the calls that numbers have at one time.
    #[must_use]
    pub fn with_channels(mut self, channels: Vec<(E164, u32)>) -> Self {
        for (number, channels_max) in channels {
            if let Some(did) = self.dids.get_mut(&number) {
                did.channels_max = Some(channels_max);
            }
        }
        self
    }

    /// Has the calls of `number` recorded.
    #[must_use]
    pub fn with_recorded(mut self, number: &E164) -> Self {
        if let Some(did) = self.dids.get_mut(number) {
            did.record = RecordCalls::Always;
        }
        self
    }

    fn add_source(&mut self, source: IpNet, trunk: &Arc<TrunkRoute>) {
        let is_ipv4 = source.addr().is_ipv4();
        let prefix_len = source.prefix_len();
        let position = self
            .sources
            .iter()
            .position(|table| table.prefix_len == prefix_len && table.is_ipv4 == is_ipv4)
            .unwrap_or_else(|| {
                self.sources.push(SourceTable {
                    prefix_len,
                    is_ipv4,
                    trunks: HashMap::new(),
                });
                self.sources.len() - 1
            });
        if let Some(table) = self.sources.get_mut(position) {
            table.trunks.insert(source.trunc(), Arc::clone(trunk));
        }
    }

    /// The trunk that `source` belongs to, by longest prefix. IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn trunk_for(&self, source: IpAddr) -> Option<&Arc<TrunkRoute>> {
        let source = source.to_canonical();
        self.sources
            .iter()
            .filter(|table| table.is_ipv4 == source.is_ipv4())
            .find_map(|table| {
                let network = IpNet::new(source, table.prefix_len).ok()?.trunc();
                table.trunks.get(&network)
            })
    }

    /// Every trunk, by name.
    pub fn trunks(&self) -> impl Iterator<Item = &Arc<TrunkRoute>> {
        self.trunks.values()
    }

    /// The trunk of this name.
    #[must_use]
    pub fn trunk(&self, name: &Name) -> Option<&Arc<TrunkRoute>> {
        self.trunks.get(name)
    }

    /// What members of `tenant` may call; `None`: no such tenant, or nothing was said.
    #[must_use]
    pub fn tenant_outbound(&self, tenant: &Name) -> Option<&Arc<TenantOutbound>> {
        self.outbound.get(tenant)
    }

    /// The trunks that a call of `tenant` to `number` goes out through, in order.
    #[must_use]
    pub fn trunks_for(&self, tenant: &Name, dialled: &Dialled) -> Vec<Arc<TrunkRoute>> {
        let routes = self
            .routes
            .get(tenant)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let fits = |route: &&Route| match dialled {
            Dialled::Number(number) => number.as_str().starts_with(&route.prefix),
            Dialled::Emergency(text) => route.prefix == *text,
        };
        let mut names: Vec<&Name> = match routes.iter().find(fits) {
            Some(route) => route.trunks.iter().collect(),
            // Help has no prefix: whatever takes calls may take this one, the general way first.
            None if dialled.is_emergency() => routes
                .iter()
                .rev()
                .flat_map(|route| &route.trunks)
                .collect(),
            None => Vec::new(),
        };
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let trunks = names.into_iter().filter_map(|name| self.trunks.get(name));
        trunks.cloned().collect()
    }

    /// Who answers `number`.
    #[must_use]
    pub fn did(&self, number: &E164) -> Option<&DidRoute> {
        self.dids.get(number)
    }

    /// The conference of `number`.
    #[must_use]
    pub fn conference(&self, number: &E164) -> Option<&Arc<ConferenceRoute>> {
        self.conferences.get(number)
    }

    /// The group that `number` rings.
    #[must_use]
    pub fn group_did(&self, number: &E164) -> Option<&Arc<GroupRoute>> {
        self.group_dids.get(number)
    }

    /// The group with this extension.
    #[must_use]
    pub fn group(&self, tenant: &Name, extension: &Extension) -> Option<&Arc<GroupRoute>> {
        self.groups.get(&(tenant.clone(), extension.clone()))
    }

    /// What a tenant's callers hear, where it says so.
    #[must_use]
    pub fn sounds(&self, tenant: &Name) -> Option<&TenantSounds> {
        self.sounds.get(tenant)
    }

    /// The member with this digest user name.
    #[must_use]
    pub fn member_by_sip_user(&self, sip_user: &str) -> Option<&Arc<MemberRoute>> {
        self.sip_users.get(&sip_user.parse::<SipUser>().ok()?)
    }

    /// The member with this extension.
    #[must_use]
    pub fn member(&self, tenant: &Name, extension: &Extension) -> Option<&Arc<MemberRoute>> {
        self.members.get(&(tenant.clone(), extension.clone()))
    }

    /// Trunks, members and DIDs.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.trunks.len(), self.members.len(), self.dids.len())
    }

    /// The media addresses that trunks and members name, each once.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<&InterfaceName> {
        let trunks = self.trunks.values();
        let members = self.members.values();
        trunks
            .filter_map(|trunk| trunk.media.as_ref())
            .chain(members.filter_map(|member| member.media.as_ref()))
            .collect()
    }

    /// Members whose credential was made for another realm than `realm`.
    #[must_use]
    pub fn members_outside_realm(&self, realm: &str) -> usize {
        self.members
            .values()
            .filter(|member| member.credential.realm() != realm)
            .count()
    }
}
