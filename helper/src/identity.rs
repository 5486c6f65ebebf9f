//! Whose ids the share's are: the map, who may write it, and the id that the server gets for itself.
//!
//! - started by root with a map: that map; without one: every id is itself; either in a user namespace;
//! - started by root with `--identity=host`: the host's own ids, no user namespace;
//! - the same with `--identity=soft`: the map as without, which the helper applies where user namespaces are forbidden;
//! - started by an ordinary user: the map given, else guest root is the user and the subordinate ids follow, else the
//!   user alone;
//! - asked for by somebody who did not start it: what the policy gives him.

use postern_ipc::hello::Root;
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::model::Model;
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::host::{HostGid, HostUid};
use postern_policy::idmap::{Extent, IdMap, IdMaps};
use postern_policy::rules::{Caller, Ids};
use postern_policy::sandbox::{self, namespace::User};
use postern_policy::subid::{self, Grant};
use postern_policy::translate::{Rule, ShareGid, ShareUid, Translation};

use crate::args::{Args, Form};
use crate::kind::Kind;
use crate::mapper::{Tool, Writer};

/// The user who owns nothing. Linux: overflowuid
const NOBODY: u32 = 65534;
/// What makes all ids of the guest the only one of a share.
const ALL_ARE_ROOT: &str = "squash-guest:0:0:4294967295";

/// The answer of this module for one share.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Which ids of the share are which of the host.
    pub(crate) maps: IdMaps,
    /// Which ids of the guest are others in the share.
    pub(crate) translation: Translation,
    /// How user ids and group ids get into the kernel.
    pub(crate) writers: [Writer; 2],
    /// What confines it to the map.
    pub(crate) form: Form,
    /// Mapped user ids and group ids that users of the host may have: then set-id files matter to it.
    pub(crate) real: [Vec<Extent>; 2],
    /// Who started the helper.
    by: Starter,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Starter {
    Root,
    User {
        uid: u32,
        gid: u32,
    },
    /// Root, for somebody whom a policy gives ids; `more` than newuidmap(1) and newgidmap(1) would.
    Policy {
        uid: u32,
        gid: u32,
        more: bool,
    },
}

impl Identity {
    /// Decides by who started the helper and what he said.
    pub(crate) fn decide(args: &Args) -> Result<Self, Fatal> {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        match args.identity {
            _ if uid.is_root() => Self::of_root(args),
            Form::Userns => Self::of_user(args, uid.as_raw(), gid.as_raw()),
            Form::Host => Err(Fatal::new("be the host's root", "not started by it")
                .hint("leave --identity=host out, or start the helper as root")),
            Form::Soft => Err(Fatal::new("map ids without a user namespace (--identity=soft)", "not started by root")
                .hint("start the helper as root, or have it started by root's postern-helper.socket")),
        }
    }

    fn of_root(args: &Args) -> Result<Self, Fatal> {
        if args.identity == Form::Host && !(args.uid_map.is_empty() && args.gid_map.is_empty()) {
            return Err(Fatal::new("map ids (--uid-map, --gid-map)", "with --identity=host all are the host's own")
                .hint("choose --identity=userns or --identity=soft"));
        }
        let model = Model::from(args.security_model);
        let uids = given(Kind::User, &args.uid_map).unwrap_or_else(|| identity(Kind::User))?;
        let gids = given(Kind::Group, &args.gid_map).unwrap_or_else(|| identity(Kind::Group))?;
        let form = args.identity;
        if form != Form::Host && uids.is_identity() && !model.is_mapped() {
            let trusted = if args.xattrmap.is_none() { " and trusted.* attributes" } else { "" };
            log::info!("no id map given: every id is itself; device nodes{trusted} give EPERM");
        }
        let writers = [Writer::Direct, Writer::Direct];
        let real = real(&uids, &gids);
        let maps = IdMaps { uids, gids };
        let translation = translation(args, &maps)?;
        if args.identity == Form::Soft && model.is_mapped() {
            let why = format!("with --security-model={model} nothing on the host belongs to the guest's users");
            return Err(Fatal::new("map ids without a user namespace (--identity=soft)", why)
                .hint("choose --security-model=passthrough, or start the helper as an ordinary user"));
        }
        Ok(Self { maps, translation, writers, form, real, by: Starter::Root })
    }

    /// He owns the user namespace: to his other processes, a server's perhaps, the helper is closed for being no
    /// dumpable one, and for nothing else.
    fn of_user(args: &Args, uid: u32, gid: u32) -> Result<Self, Fatal> {
        if sandbox::opens_by_acting() {
            return Err(Fatal::new("keep other processes of its user out of the helper", "fs.suid_dumpable is 1")
                .hint("sysctl fs.suid_dumpable=0, or 2"));
        }
        let kept = Model::from(args.security_model).is_mapped();
        let (uids, by_uid) = user_map(Kind::User, &args.uid_map, uid, uid, kept || !args.translate_uid.is_empty())?;
        let (gids, by_gid) = user_map(Kind::Group, &args.gid_map, uid, gid, kept || !args.translate_gid.is_empty())?;
        let (real, by) = (real(&uids, &gids), Starter::User { uid, gid });
        let maps = IdMaps { uids, gids };
        let translation = translation(args, &maps)?;
        Ok(Self { maps, translation, writers: [by_uid, by_gid], form: Form::Userns, real, by })
    }

    /// Of whom the policy gives a share.
    pub(crate) fn of_caller(caller: &Caller, ids: &Ids) -> Result<Self, Fatal> {
        let &Caller { uid, gid, .. } = caller;
        let subordinate = |kind, own| match granted(kind, uid) {
            Ok(grants) => with_grants(kind, own, &grants),
            Err(why) => {
                log::info!("one {kind} id only, guest root's: {why}");
                Ok(IdMap::single(own))
            }
        };
        let maps = match ids {
            Ids::Own => IdMaps { uids: IdMap::single(uid), gids: IdMap::single(gid) },
            Ids::Subordinate => IdMaps { uids: subordinate(Kind::User, uid)?, gids: subordinate(Kind::Group, gid)? },
            Ids::Given(maps) => maps.clone(),
        };
        let (writers, real) = ([Writer::Direct, Writer::Direct], real(&maps.uids, &maps.gids));
        let by = Starter::Policy { uid, gid, more: matches!(ids, Ids::Given(_)) };
        Ok(Self { maps, translation: Translation::default(), writers, form: Form::Userns, real, by })
    }

    /// A process with these ids may have the share's ids in a user namespace of its own. It is somebody at the other
    /// end of a socket, and in its namespace it can be whoever is mapped. Root may be everybody; others have their own
    /// ids, and subordinate ones, which are no user's; whoever started the helper has chosen them. An ordinary user's
    /// maps are written by a program that judges itself. What a policy gives for one share is not given for others.
    pub(crate) fn may_be_had_by(&self, ids: (HostUid, HostGid), started: bool) -> bool {
        let (HostUid(server_uid), HostGid(server_gid)) = ids;
        if self.form == Form::Soft {
            // It would get all ids, as it is to see those that the helper sees.
            return started || server_uid == 0;
        }
        let own = |real: &[Extent], id| real.iter().all(|extent| (extent.outside, extent.count) == (id, 1));
        let [uids, gids] = &self.real;
        match self.by {
            Starter::Root => started || server_uid == 0 || (own(uids, server_uid) && own(gids, server_gid)),
            Starter::User { .. } => true,
            Starter::Policy { uid, gid, more } => !more && (server_uid, server_gid) == (uid, gid),
        }
    }

    /// The map of the server's user namespace, and its own ids inside. `server` are its ids on the host.
    pub(crate) fn for_server(&self, server: (HostUid, HostGid)) -> Result<(IdMaps, GuestUid, GuestGid), Fatal> {
        let (HostUid(server_uid), HostGid(server_gid)) = server;
        let (uids, uid, gids, gid) = match self.by {
            Starter::Root => {
                let maps = self.seen()?;
                let (uids, uid) = beside(&maps.uids, server_uid)?;
                let (gids, gid) = beside(&maps.gids, server_gid)?;
                (uids, uid, gids, gid)
            }
            Starter::User { uid, gid } | Starter::Policy { uid, gid, .. } => {
                let maps = self.maps.clone();
                let (uid, gid) = (apart(&maps.uids, uid), apart(&maps.gids, gid));
                (maps.uids, uid, maps.gids, gid)
            }
        };
        if uid == 0 {
            log::warn!("the server has no user id of its own: it shares guest root's");
        }
        Ok((IdMaps { uids, gids }, GuestUid(uid), GuestGid(gid)))
    }

    /// The ids that a server sees which looks itself: those that the helper does.
    fn seen(&self) -> Result<IdMaps, Fatal> {
        match self.form {
            Form::Soft => Ok(IdMaps { uids: identity(Kind::User)?, gids: identity(Kind::Group)? }),
            Form::Userns | Form::Host => Ok(self.maps.clone()),
        }
    }

    /// How the ids of requests become those of the helper's system calls.
    pub(crate) fn kernels(&self) -> Result<Translation, Fatal> {
        let translation = self.translation.clone();
        match self.form {
            Form::Soft => translation.mapped(self.maps.clone()).map_err(|why| {
                Fatal::new("apply the id map (--identity=soft)", why).hint("give fewer and longer ranges")
            }),
            Form::Userns | Form::Host => Ok(translation),
        }
    }

    /// Whether the helper has a user namespace.
    pub(crate) fn namespace(&self) -> User {
        if self.form == Form::Userns { User::New } else { User::Stay }
    }

    /// The helper's own ids in its namespace: those of the share's root.
    pub(crate) fn own(&self) -> (u32, u32) {
        let (uid, gid) = (self.maps.host_uid(ShareUid(0)), self.maps.host_gid(ShareGid(0)));
        match (self.form, uid, gid) {
            (Form::Soft, Some(HostUid(uid)), Some(HostGid(gid))) => (uid, gid),
            _ => (0, 0),
        }
    }

    /// Who guest root is.
    pub(crate) fn root(&self) -> Root {
        match self.translation.uid(GuestUid(0)) {
            Ok(uid @ ShareUid(0)) if self.maps.host_uid(uid) == Some(HostUid(0)) => Root::Host,
            Ok(ShareUid(0)) => Root::Share,
            _ => Root::Translated,
        }
    }

    /// Who guest root is on the host, for people.
    pub(crate) fn root_on_host(&self) -> String {
        let uid = self.translation.uid(GuestUid(0)).ok().and_then(|uid| self.maps.host_uid(uid));
        let gid = self.translation.gid(GuestGid(0)).ok().and_then(|gid| self.maps.host_gid(gid));
        match (uid, gid) {
            (Some(uid), Some(gid)) => format!("guest root is uid {uid} gid {gid}"),
            _ => "guest root is nobody".into(),
        }
    }

    /// Groups can be left once there are some to join.
    pub(crate) fn has_groups(&self) -> bool {
        match self.by {
            Starter::Root => true,
            Starter::User { .. } => self.writers[1] != Writer::Direct,
            Starter::Policy { gid, more, .. } => more || self.maps.gids != IdMap::single(gid),
        }
    }
}

/// As it is given, unless the guest would get ids that the share has not.
fn translation(args: &Args, maps: &IdMaps) -> Result<Translation, Fatal> {
    let (users, groups) = (&args.translate_uid, &args.translate_gid);
    let step = "translate ids (--translate-uid, --translate-gid)";
    let translation = Translation::new(users, groups).map_err(|why| Fatal::new(step, why))?;
    let model = Model::from(args.security_model);
    if model.is_mapped() && !translation.is_none() {
        let why = format!("with --security-model={model} all ids of the guest are kept as they are");
        return Err(Fatal::new(step, why).hint("leave them out, or choose --security-model=passthrough"));
    }
    for (kind, rules, map) in [(Kind::User, users, &maps.uids), (Kind::Group, groups, &maps.gids)] {
        let lost = |rule: &&Rule| rule.target().is_some_and(|id| map.outward(id).is_none());
        if let Some(rule) = rules.iter().find(lost) {
            let why = format!("{} is no {kind} id of the share, whose map is {map}", rule.target().unwrap_or_default());
            return Err(Fatal::new(format!("translate {kind} ids by {rule}"), why)
                .hint("the ids of the share are the INSIDE ones of its map, and 0 is always one"));
        }
    }
    Ok(translation)
}

/// What of the maps is nobody's subordinate id.
fn real(uids: &IdMap, gids: &IdMap) -> [Vec<Extent>; 2] {
    [(Kind::User, uids), (Kind::Group, gids)].map(|(kind, map)| {
        let granted = std::fs::read_to_string(kind.grants()).unwrap_or_default();
        subid::others(&subid::all(&granted), map)
    })
}

fn given(kind: Kind, extents: &[Extent]) -> Option<Result<IdMap, Fatal>> {
    (!extents.is_empty()).then(|| {
        let step = format!("use the {kind} map given");
        let map = IdMap::new(extents.to_vec()).map_err(|why| Fatal::new(&step, why))?;
        match map.outward(0) {
            Some(_) => Ok(map),
            None => Err(Fatal::new(&step, "guest root is not mapped").hint("give a range whose INSIDE is 0")),
        }
    })
}

fn identity(kind: Kind) -> Result<IdMap, Fatal> {
    let step = format!("map every {kind} id to itself");
    let here = std::fs::read_to_string(kind.here()).step(&step)?;
    IdMap::identity(&here).map_err(|why| Fatal::new(step, why))
}

/// The map of an ordinary user, and who writes it. Without subordinate ids, or without the tool for them, one id; that
/// is `enough` where the guest's ids are kept beside the host's, or translated.
fn user_map(kind: Kind, extents: &[Extent], uid: u32, own: u32, enough: bool) -> Result<(IdMap, Writer), Fatal> {
    if let Some(map) = given(kind, extents) {
        let map = map?;
        let writer = if map == IdMap::single(own) { Writer::Direct } else { Writer::Tool(Tool::find(kind.tool())?) };
        return Ok((map, writer));
    }
    match granted(kind, uid).and_then(|grants| Ok((grants, Tool::find(kind.tool())?))) {
        Ok((grants, tool)) => Ok((with_grants(kind, own, &grants)?, Writer::Tool(tool))),
        Err(why) => {
            if !enough {
                let option = kind.translates();
                log::warn!("one {kind} id only, guest root's ({option} {ALL_ARE_ROOT} makes all that one): {why}");
            }
            Ok((IdMap::single(own), Writer::Direct))
        }
    }
}

fn with_grants(kind: Kind, own: u32, grants: &[Grant]) -> Result<IdMap, Fatal> {
    subid::map(own, grants).map_err(|why| Fatal::new(format!("use {}", kind.grants()), why))
}

fn granted(kind: Kind, uid: u32) -> Result<Vec<Grant>, Fatal> {
    let file = std::fs::read_to_string(kind.grants()).unwrap_or_default();
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    let grants = subid::grants(&file, user.as_ref().map(|user| user.name.as_str()), uid);
    if grants.is_empty() {
        let what = format!("use subordinate {kind} ids");
        let who = user.map_or_else(|| uid.to_string(), |user| user.name);
        let (first, last) = subid::free(&subid::all(&file));
        let option = format!("{} {first}-{last}", kind.gives());
        return Err(Fatal::new(what, format!("{} gives user {uid} none", kind.grants()))
            .hint(&format!("usermod {option} {who} would")));
    }
    Ok(grants)
}

/// Root's share: the server is beside it with an id of its own, which is not the host's root.
fn beside(map: &IdMap, server: u32) -> Result<(IdMap, u32), Fatal> {
    let host = if server == 0 { NOBODY } else { server };
    if let Some(inside) = map.inward(host) {
        return Ok((map.clone(), inside));
    }
    let inside = if map.outward(NOBODY).is_none() { NOBODY } else { map.last_inside().saturating_add(1) };
    let map = map.with(inside, host).map_err(|why| Fatal::new("give the server an id of its own", why))?;
    Ok((map, inside))
}

/// A user's share: the last subordinate id is the server's; guest root's if there are none.
fn apart(map: &IdMap, own: u32) -> u32 {
    let subordinate = map.extents().iter().rev().find(|extent| extent.outside != own);
    subordinate.map_or(0, |extent| extent.inside.saturating_add(extent.count.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(inside: u32, outside: u32, count: u32) -> IdMap {
        IdMap::new(vec![Extent { inside, outside, count }]).unwrap()
    }

    #[test]
    fn the_server_of_a_share_of_root_keeps_its_id_beside_the_mapped_ones() {
        let (with, inside) = beside(&map(0, 100_000, 1000), 64_055).unwrap();
        assert_eq!((inside, with.outward(65_534)), (NOBODY, Some(64_055)));
        let (with, inside) = beside(&map(0, 100_000, 65_536), 64_055).unwrap();
        assert_eq!((inside, with.outward(65_536)), (65_536, Some(64_055)));
        assert_eq!(beside(&map(0, 0, u32::MAX), 64_055).unwrap(), (map(0, 0, u32::MAX), 64_055));
    }

    #[test]
    fn a_server_that_is_the_hosts_root_becomes_nobody() {
        let (with, inside) = beside(&map(0, 100_000, 1000), 0).unwrap();
        assert_eq!((inside, with.outward(inside), with.inward(0)), (NOBODY, Some(NOBODY), None));
        assert_eq!(beside(&map(0, 0, u32::MAX), 0).unwrap().1, NOBODY);
    }

    #[test]
    fn the_server_of_a_users_share_has_the_last_subordinate_id() {
        let both = IdMap::new(vec![
            Extent { inside: 0, outside: 1000, count: 1 },
            Extent { inside: 1, outside: 100_000, count: 65_536 },
        ]);
        assert_eq!(apart(&both.unwrap(), 1000), 65_536);
        assert_eq!(apart(&IdMap::single(1000), 1000), 0);
    }
}
