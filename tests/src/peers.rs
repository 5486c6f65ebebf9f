//! Where the peers, and postern with a mapped security model, do not do what a local file system does, and why. What 9P
//! has no words for is in [`v9fs::WORDLESS`](crate::v9fs::WORDLESS).
//!
//! Such a test must fail there: a row that is no longer true is an error.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::Kind;
use crate::Kind::{CVirtiofsd, MappedFile, MappedXattr, Virtiofsd};
use crate::kernel::Wordless;

/// Kinds, what they lack, the behaviours that need it.
const DEVIATIONS: &[(&[Kind], &str, &[&str])] = &[
    (
        &[Virtiofsd, CVirtiofsd],
        "no TMPFILE",
        &[
            "a_temporary_file_belongs_to_its_creator",
            "a_temporary_file_can_be_given_a_name",
            "a_temporary_file_has_no_name",
            "a_temporary_file_needs_a_directory",
            "an_exclusive_temporary_file_stays_nameless",
            "no_temporary_file_is_made_on_a_read_only_share",
        ],
    ),
    (&[Virtiofsd, CVirtiofsd], "no STATX", &["statx_shows_what_stat_shows", "the_time_of_birth_is_shown"]),
    (
        &[Virtiofsd, CVirtiofsd],
        "no IOCTL",
        &[
            "a_request_of_the_wrong_size_is_refused",
            "an_immutable_file_is_not_made",
            "extended_inode_flags_are_set_and_shown",
            "inode_flags_are_set_and_shown",
            "inode_flags_are_set_through_a_file_open_for_reading",
            "inode_flags_of_a_directory_are_set",
            "no_other_request_reaches_the_host",
            "the_generation_is_shown",
        ],
    ),
    (&[Virtiofsd, CVirtiofsd], "no COPY_FILE_RANGE_64", &["more_than_four_gibibytes_can_be_copied"]),
    (
        &[Virtiofsd, CVirtiofsd],
        "one request queue",
        &["all_request_queues_see_one_tree", "request_queues_work_in_parallel"],
    ),
    (&[Virtiofsd, CVirtiofsd], "a buffer in two regions ends the process", &["a_buffer_may_lie_in_two_regions"]),
    (&[Virtiofsd], "a forbidden id gives EIO", &["a_forbidden_id_gets_nothing", "root_of_the_guest_may_be_forbidden"]),
    (&[Virtiofsd, CVirtiofsd], "ends with its VMM", &["another_vmm_may_come"]),
    (
        &[Virtiofsd],
        "a node is a file handle, and an inode without a name has none",
        &[
            "a_file_that_the_host_replaces_is_another_node",
            "a_node_found_where_the_host_replaces_files_stays_the_file_it_was",
            "a_node_in_use_that_the_host_unlinks_is_still_there",
            "a_removed_directory_in_use_is_empty",
            "nothing_is_created_in_a_removed_directory",
        ],
    ),
    (
        &[Virtiofsd],
        "DESTROY is not answered",
        &["a_guest_may_mount_again", "a_guest_of_a_later_major_version_is_told_ours"],
    ),
    (&[Virtiofsd], "an offset above 2^63 ends the process", &["a_write_beyond_the_largest_file_is_refused"]),
    (&[Virtiofsd], "a symbolic link opened as a directory is EBADF", &["a_file_is_not_opened_as_a_directory"]),
    (&[Virtiofsd], "unknown rename flags are ignored", &["contradictory_and_unknown_flags_are_invalid"]),
    (&[Virtiofsd], "O_RDONLY|O_TRUNC is EINVAL", &["no_file_of_a_read_only_share_is_opened_for_writing"]),
    (
        &[Virtiofsd],
        "O_APPEND of a guest that collects writes appends",
        &["a_guest_that_collects_writes_may_read_what_it_writes"],
    ),
    (&[Virtiofsd], "reads change access times", &["reading_a_read_only_share_leaves_no_trace"]),
    (
        &[CVirtiofsd],
        "no read-only shares",
        &[
            "a_file_is_opened_for_reading_whatever_else_its_flags_say",
            "a_read_only_share_is_read",
            "an_open_file_of_a_read_only_share_is_not_changed",
            "an_open_file_of_a_read_only_share_is_not_changed_otherwise",
            "no_attribute_of_a_read_only_share_changes",
            "no_extended_attribute_of_a_read_only_share_changes",
            "no_file_of_a_read_only_share_is_opened_for_writing",
            "no_name_of_a_read_only_share_is_made_or_removed",
            "no_names_of_a_read_only_share_are_exchanged",
            "reading_a_read_only_share_leaves_no_trace",
        ],
    ),
    (&[CVirtiofsd], "no tag", &["the_tag_is_in_the_config_space"]),
    (&[CVirtiofsd], "announces no mounts without a thread pool", &["a_mount_below_the_share_is_announced"]),
    (&[CVirtiofsd], "a name the guest has not looked up is EIO", &["nothing_is_renamed_or_linked_across_mounts"]),
    (
        &[CVirtiofsd],
        "no ACCESS",
        &["access_is_checked_for_the_caller", "root_may_access_all_but_what_nobody_may_execute"],
    ),
    (
        &[CVirtiofsd],
        "no supplementary groups",
        &[
            "a_guest_that_sends_no_groups_creates_where_they_let_it",
            "a_member_makes_set_group_id_files_in_the_groups_directory",
            "a_supplementary_group_opens_a_directory",
        ],
    ),
    (
        &[CVirtiofsd],
        "a name the guest has not looked up is EIO",
        &[
            "a_missing_directory_is_not_removed",
            "a_missing_name_is_not_renamed",
            "a_missing_name_is_not_unlinked",
            "a_name_too_long_is_not_removed",
            "nothing_is_removed_below_a_file",
        ],
    ),
    (
        &[CVirtiofsd],
        "CREATE of what exists ends the process",
        &[
            "creation_can_empty_a_file_that_exists",
            "creation_does_not_open_a_directory",
            "creation_opens_a_file_that_exists",
        ],
    ),
    (&[CVirtiofsd], "generations are all the same", &["a_name_used_again_is_another_node"]),
    (
        &[CVirtiofsd],
        "each node takes a descriptor",
        &[
            "a_tree_may_be_larger_than_the_descriptor_limit",
            "idle_nodes_are_found_again_after_renames",
            "nodes_without_names_are_kept_among_many",
        ],
    ),
    (&[CVirtiofsd], "a lock request is EOPNOTSUPP", &["a_lock_request_is_not_implemented"]),
    (&[CVirtiofsd], "an opcode beyond the known is EIO", &["what_is_not_served_is_not_implemented"]),
    (
        &[MappedXattr, MappedFile],
        "no ACLs on virtio-fs: the host would have to inherit them",
        &[
            "a_broken_acl_is_not_set",
            "a_default_acl_is_inherited",
            "a_file_has_no_default_acl",
            "an_acl_is_kept",
            "an_acl_is_removed",
            "an_acl_names_the_hosts_ids_on_the_host",
            "an_acl_set_from_outside_the_group_clears_the_set_group_id_bit",
            "acls_are_off_unless_asked_for",
            "an_acl_sets_the_permission_bits",
            "chmod_changes_the_mask",
            "the_umask_counts_without_a_default_acl",
        ],
    ),
    (
        &[MappedXattr, MappedFile],
        "on the host a regular file of the user's own stands for what the guest makes",
        &[
            "a_symbolic_link_keeps_its_text",
            "every_entry_has_its_name_inode_and_kind",
            "what_root_makes_belongs_to_root",
        ],
    ),
    (&[MappedXattr, MappedFile], "RENAME_WHITEOUT would make a device node", &["whiteout_leaves_a_whiteout"]),
    (
        &[MappedXattr, MappedFile],
        "what root has mounted is not the user's to change",
        &["what_is_mounted_below_the_share_is_read_and_changed"],
    ),
    (&[MappedXattr], "attributes take a block of their own", &["a_hole_can_be_punched"]),
    (
        &[MappedFile],
        "what has no name has no attributes",
        &[
            "a_temporary_file_belongs_to_its_creator",
            "a_temporary_file_can_be_given_a_name",
            "a_temporary_file_has_no_name",
            "an_exclusive_temporary_file_stays_nameless",
        ],
    ),
    (
        &[MappedFile],
        "attributes are found by the path, of which the kernel tells 4095 bytes",
        &["a_tree_may_be_deeper_than_a_path_is_long"],
    ),
];

/// Runs a behaviour on a kind, and expects it to fail where the table says so, or where it asks for something that the
/// protocol has no words for.
///
/// # Panics
/// When the behaviour does not hold, or holds against the table.
pub fn prove(name: &str, on: Kind, behaviour: fn(Kind)) {
    let row = DEVIATIONS.iter().find(|(kinds, _, names)| kinds.contains(&on) && names.contains(&name));
    match (catch_unwind(AssertUnwindSafe(|| behaviour(on))), row) {
        (Ok(()), Some((_, why, _))) => panic!("holds on {on:?}: its row is to go ({why})"),
        (Err(failure), None) if !failure.is::<Wordless>() => resume_unwind(failure),
        (Ok(()), None) | (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_behaviours_that_exist() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file());
        let source: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        for name in DEVIATIONS.iter().flat_map(|row| row.2) {
            assert!(source.contains(&format!("fn {name}(")), "{name}");
        }
    }
}
