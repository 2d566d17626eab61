"""Where pixels are: CrystFEL geometry files, pixel maps, rays, assembly."""
