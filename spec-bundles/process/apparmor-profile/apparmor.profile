profile e2e-spec-bundle flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  deny /etc/group r,
}
