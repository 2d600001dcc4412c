//! `linux.seccomp` as config.json writes it. Actions, operators, architectures and flags stay
//! strings here: `plan::seccomp` turns them into values, so that its errors can name the place.

use serde::{Deserialize, Serialize};

use super::or_default;

/// A system call filter. Go writers put `null` where a list or string is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Seccomp {
    /// What happens to calls that no rule matches.
    #[serde(deserialize_with = "or_default")]
    pub(crate) default_action: String,
    /// The errno of the default action, where that is ERRNO or TRACE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_errno_ret: Option<u32>,
    /// ABIs to filter besides the native one; calls of any other kill the thread.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) architectures: Vec<String>,
    /// Filter flags. Absent is not the same as empty: absent asks for `SPEC_ALLOW`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flags: Option<Vec<String>>,
    /// Socket of the agent that answers NOTIFY actions.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) listener_path: String,
    /// Opaque text that is handed to the agent.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) listener_metadata: String,
    /// The rules, in order.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) syscalls: Vec<Syscall>,
}

/// One rule: an action for some calls, under conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Syscall {
    /// Names of system calls.
    #[serde(deserialize_with = "or_default")]
    pub(crate) names: Vec<String>,
    /// What happens to them.
    #[serde(deserialize_with = "or_default")]
    pub(crate) action: String,
    /// The errno of the action, where that is ERRNO or TRACE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno_ret: Option<u32>,
    /// Conditions on the arguments.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<Argument>,
}

/// A condition on one argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Argument {
    /// Which argument, from 0.
    #[serde(deserialize_with = "or_default")]
    pub(crate) index: u32,
    /// The value compared with, or the mask of a masked comparison.
    #[serde(deserialize_with = "or_default")]
    pub(crate) value: u64,
    /// The value compared with in a masked comparison.
    #[serde(deserialize_with = "or_default")]
    pub(crate) value_two: u64,
    /// The comparison.
    #[serde(deserialize_with = "or_default")]
    pub(crate) op: String,
}
