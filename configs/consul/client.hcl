# A Consul agent beside a Nomad client, on a machine without a Consul server.
server = false

# A restart of the agent must not take its services out of the catalogue.
leave_on_terminate = false
