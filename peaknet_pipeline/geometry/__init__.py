"""Where pixels are: CrystFEL geometry files, pixel maps, radius maps, rays to panels."""
