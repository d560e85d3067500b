import time
from idp.domain.directory.roles import Role
from tests.actors import *
def test_x(world):
    t=time.perf_counter(); s=world.person(); print("person",time.perf_counter()-t)
    t=time.perf_counter(); hq=world.person("hq1",role=Role.HQ_ADMIN,name="</title><script>alert(1)</script>"); print("hq",time.perf_counter()-t)
    b=Browser(world.app)
    t=time.perf_counter(); b.log_in(s); print("login",time.perf_counter()-t)
    t=time.perf_counter(); b.get("/"); print("get",time.perf_counter()-t)
    b2=Browser(world.app); b2.log_in(hq)
    r=b2.get(f"/hq/people/{hq.id}"); print(r.status_code, r.text[:600])
    for r in world.app.url_map.iter_rules(): print(r.endpoint, r.rule, sorted(r.methods))
    print(r, b2.get("/hq/people?after=zz").status_code, b2.get("/receipts?before=zz").status_code, b2.get("/hq/people?q=%00").status_code, b2.get("/store/%00/staff").status_code)
