//! `pawl iam-policy`.

use clap::{Args, ValueEnum};

use super::SettingsFile;

/// `pawl iam-policy`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl iam-policy --cluster-arn arn:aws:kafka:eu-central-1:123456789012:cluster/orders/1b2c-5
  pawl iam-policy --form acl --principal User:pawl |
      while read -r acl; do kafka-acls.sh --bootstrap-server localhost:9092 $acl; done

Asks no broker. What is printed is what `pawl run` needs with these settings, and no more; `pawl check` tells \
which of it is missing.")]
pub struct IamPolicy {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// What to print.
    #[arg(long, value_enum, default_value = "iam")]
    pub form: PolicyForm,
    /// The ARN of the MSK cluster, without which there is no policy of IAM; what stands in ${} is passed through, for
    /// CloudFormation's Fn::Sub.
    #[arg(long, value_name = "ARN")]
    pub cluster_arn: Option<String>,
    /// As whom the brokers know Pawl [default: User: and kafka.sasl.username].
    #[arg(long, value_name = "PRINCIPAL")]
    pub principal: Option<String>,
}

/// The forms of `pawl iam-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyForm {
    /// A policy of AWS IAM, as JSON.
    Iam,
    /// Lines of arguments for kafka-acls.sh.
    Acl,
}
