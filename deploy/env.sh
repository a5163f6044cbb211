# shellcheck shell=bash
# Which cluster the scripts here mean. The names are those of OpenMLDB's tools/env.sh; each value may also come from the
# environment, which wins.

# The stela binary: a path, or a name that PATH knows. On other hosts it is expected at the same path.
openmldb_bin_path=${openmldb_bin_path-stela}

# There is no ZooKeeper: this is the list of nameservers, host:port,host:port,host:port. Empty: those of the hosts file.
zk_cluster=${zk_cluster-}

# The cluster's name, behind a slash. Servers of one name refuse those of another.
zk_root_path=${zk_root_path-/openmldb}

# What start-all.sh and stop-all.sh start and stop, and the flags that all servers of a role get.
stela_hosts=${stela_hosts-$deploy_dir/hosts}
stela_conf=${stela_conf-$deploy_dir/conf}
