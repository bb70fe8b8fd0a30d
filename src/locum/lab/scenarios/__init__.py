"""The scenarios, one file each, named after their figures."""

from locum.lab.scenario import Scenario
from locum.lab.scenarios.apps.awake import AppAwake
from locum.lab.scenarios.apps.call import AppCall, AppCallBrief
from locum.lab.scenarios.apps.compute import AppCompute, AppComputeBrief
from locum.lab.scenarios.apps.crash import AppCrash, AppCrashBrief
from locum.lab.scenarios.apps.decode import AppDecode
from locum.lab.scenarios.apps.download import AppDownload, AppDownloadBrief
from locum.lab.scenarios.apps.handovers import AppHandovers
from locum.lab.scenarios.apps.header_log import AppLog
from locum.lab.scenarios.apps.keep_alive import AppKeepAlive, AppKeepAliveBrief
from locum.lab.scenarios.apps.mail import AppMail, AppMailAttended, AppMailBrief
from locum.lab.scenarios.apps.mixed import AppMixed, AppMixedBrief
from locum.lab.scenarios.apps.publish import AppPublish
from locum.lab.scenarios.apps.splice import AppSplice, AppSpliceBrief
from locum.lab.scenarios.apps.websocket import AppWebSocket, AppWebSocketBrief
from locum.lab.scenarios.paging.call import PageCall
from locum.lab.scenarios.paging.demo import PageDemo
from locum.lab.scenarios.paging.fig11 import Fig11
from locum.lab.scenarios.paging.fig11_agents import Fig11Agents
from locum.lab.scenarios.paging.fig12 import Fig12
from locum.lab.scenarios.paging.fig14 import Fig14
from locum.lab.scenarios.paging.lost import PageLost, PageLostBrief
from locum.lab.scenarios.paging.policy import PagePolicy
from locum.lab.scenarios.paging.quiet import PageQuiet, PageQuietBrief
from locum.lab.scenarios.paging.storm import PageStorm, PageStormBrief
from locum.lab.scenarios.routing.colocated import Colocated
from locum.lab.scenarios.routing.flows import Flows
from locum.lab.scenarios.routing.move import Move
from locum.lab.scenarios.routing.nat import Nat
from locum.lab.scenarios.routing.neighbours import Neighbours
from locum.lab.scenarios.routing.police import Police
from locum.lab.scenarios.routing.policy import Policy
from locum.lab.scenarios.routing.revoke import Revoke
from locum.lab.scenarios.sleep.fig06 import Fig06
from locum.lab.scenarios.sleep.fig06_crash import Fig06Crash
from locum.lab.scenarios.sleep.fig06_deregistration import Fig06Deregistration
from locum.lab.scenarios.sleep.fig06_expiry import Fig06Expiry
from locum.lab.scenarios.sleep.fig06_forged import Fig06Forged
from locum.lab.scenarios.sleep.fig06_many import Fig06Many
from locum.lab.scenarios.sleep.fig06_programs import Fig06Programs
from locum.lab.scenarios.sleep.fig06_reboot import Fig06Reboot
from locum.lab.scenarios.sleep.fig06_repeat import Fig06Repeat
from locum.lab.scenarios.sleep.fig06_stranded import Fig06Stranded
from locum.lab.scenarios.sleep.fig06_thousand import Fig06Thousand
from locum.lab.scenarios.stand_ins.domains import ThreeDomains, TwoDomains
from locum.lab.scenarios.stand_ins.fig07 import Fig07
from locum.lab.scenarios.stand_ins.fig07_lost import Fig07Lost
from locum.lab.scenarios.stand_ins.fig08 import Fig08
from locum.lab.scenarios.stand_ins.fig10 import Fig10
from locum.lab.scenarios.stand_ins.fig10_two import Fig10Two
from locum.lab.scenarios.stand_ins.one_server import OneServer
from locum.lab.scenarios.stand_ins.shared import (
    SharedAccess,
    SharedAccessDefault,
    SharedHome,
    SharedVisited,
    SharedVisitedDefault,
)
from locum.lab.scenarios.stand_ins.translate import Translate

_ALL: tuple[type[Scenario], ...] = (
    Fig06,
    Fig06Repeat,
    Fig06Many,
    Fig06Programs,
    Fig06Thousand,
    Fig06Reboot,
    Fig06Stranded,
    Fig06Crash,
    Fig06Forged,
    Fig06Expiry,
    Fig06Deregistration,
    Fig07,
    Fig07Lost,
    Fig08,
    Fig10,
    Fig10Two,
    Flows,
    Move,
    Policy,
    Translate,
    Police,
    Nat,
    Revoke,
    Neighbours,
    Colocated,
    TwoDomains,
    ThreeDomains,
    SharedHome,
    SharedAccess,
    SharedAccessDefault,
    SharedVisited,
    SharedVisitedDefault,
    OneServer,
    AppKeepAlive,
    AppKeepAliveBrief,
    AppCompute,
    AppComputeBrief,
    AppCall,
    AppCallBrief,
    AppMail,
    AppMailAttended,
    AppMailBrief,
    AppWebSocket,
    AppWebSocketBrief,
    AppCrash,
    AppCrashBrief,
    AppHandovers,
    AppSplice,
    AppSpliceBrief,
    AppLog,
    AppDownload,
    AppDownloadBrief,
    AppDecode,
    AppPublish,
    AppAwake,
    AppMixed,
    AppMixedBrief,
    PagePolicy,
    Fig11,
    Fig11Agents,
    Fig12,
    Fig14,
    PageDemo,
    PageCall,
    PageStorm,
    PageStormBrief,
    PageLost,
    PageLostBrief,
    PageQuiet,
    PageQuietBrief,
)

SCENARIOS: dict[str, type[Scenario]] = {scenario.name: scenario for scenario in _ALL}
