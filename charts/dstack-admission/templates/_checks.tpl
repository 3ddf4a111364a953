{{/* What a JSON Schema cannot say: every problem of the values at once, each naming its key. */}}

{{- define "dstack-admission.checks" -}}
{{- $v := .Values -}}
{{- $problems := include "dstack-admission.podProblems" . | fromJsonArray -}}
{{- $problems = include "dstack-admission.modeProblems" . | fromJsonArray | concat $problems -}}
{{- $sidecar := eq $v.mode "sidecar" -}}
{{- $shared := has "ReadWriteMany" $v.server.persistence.accessModes -}}
{{- if $sidecar -}}
{{- if and (gt (int $v.replicas) 1) (not $v.server.database.existingSecret) -}}
{{- $problems = append $problems "replicas: more than one dstack server needs Postgres: set server.database.existingSecret" -}}
{{- end -}}
{{- if and (gt (int $v.replicas) 1) $v.server.persistence.enabled (not $shared) -}}
{{- $problems = append $problems "server.persistence: several pods cannot share a ReadWriteOnce volume: set server.persistence.enabled to false, or accessModes to [ReadWriteMany]" -}}
{{- end -}}
{{- if $v.autoscaling.enabled -}}
{{- $problems = append $problems "autoscaling.enabled: is for mode standalone; set replicas instead" -}}
{{- end -}}
{{- if and $v.server.config $v.server.existingConfigSecret -}}
{{- $problems = append $problems "server.config: server.existingConfigSecret is set as well; give one of the two" -}}
{{- end -}}
{{- if and $v.server.ingress.enabled (not $v.server.ingress.hosts) -}}
{{- $problems = append $problems "server.ingress.hosts: an Ingress needs a host" -}}
{{- end -}}
{{- $reserved := list "DSTACK_PLUGIN_SERVICE_URI" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "NETRC" "NO_PROXY" "no_proxy" "DSTACK_SERVER_ADMIN_TOKEN" "DSTACK_DATABASE_URL" "DSTACK_SERVER_URL" -}}
{{- range $key, $name := dict "httpProxy" "HTTP_PROXY" "httpsProxy" "HTTPS_PROXY" -}}
{{- $proxy := get $v.server.proxy $key -}}
{{- /* The lower case spelling counts before the other one. */ -}}
{{- $reserved = $proxy | empty | ternary $reserved (concat $reserved (list $name (lower $name))) -}}
{{- if contains "@" $proxy -}}
{{- $problems = append $problems (printf "server.proxy.%s: a user and a password would stand in the Deployment: leave it empty and set %s in server.extraEnv, by valueFrom from a Secret" $key $name) -}}
{{- end -}}
{{- end -}}
{{- range $v.server.extraEnv -}}
{{- if has .name $reserved -}}
{{- $problems = append $problems (printf "server.extraEnv: %s is set by the chart; see server.proxy, server.url, server.adminToken, server.database and auth" .name) -}}
{{- end -}}
{{- if eq .name "DSTACK_SERVER_CONFIG_DISABLED" -}}
{{- $problems = append $problems "server.extraEnv: with DSTACK_SERVER_CONFIG_DISABLED the server loads no plugin and nothing is reviewed" -}}
{{- end -}}
{{- if has .name (list "DSTACK_SERVER_DIR" "HOME") -}}
{{- $problems = append $problems (printf "server.extraEnv: with %s the server reads another config.yml than the chart writes, and nothing is reviewed: for other data set server.persistence.existingClaim, for files of its home server.extraVolumeMounts below /root" .name) -}}
{{- end -}}
{{- if eq .name "DSTACK_SERVER_PORT" -}}
{{- $problems = append $problems "server.extraEnv: the chart expects the server on its own port 3000, so DSTACK_SERVER_PORT must not be set; see server.service.port" -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if not $v.auth.existingSecret -}}
{{- $problems = append $problems "auth.existingSecret: in mode standalone the review port can be reached from other pods, so callers must show credentials: name a Secret with the key password" -}}
{{- end -}}
{{- if eq $v.certificates.source "made" -}}
{{- $problems = append $problems "certificates.source: `made` is for mode sidecar, since a certificate made in one pod is unknown to a server elsewhere: take certManager or secret" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.certificates.source "secret") (not $v.certificates.existingSecret) -}}
{{- $problems = append $problems "certificates.existingSecret: name the Secret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- if and (ne $v.certificates.source "secret") $v.certificates.existingSecret -}}
{{- $problems = append $problems (printf "certificates.existingSecret: is for certificates.source secret, which is %s" $v.certificates.source) -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- $problems = append $problems "autoscaling.minReplicas: is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- with $v.podDisruptionBudget -}}
{{- $min := not (eq (toString .minAvailable) "") -}}
{{- $max := not (eq (toString .maxUnavailable) "") -}}
{{- if and .enabled (eq $min $max) -}}
{{- $problems = append $problems "podDisruptionBudget: give one of minAvailable and maxUnavailable" -}}
{{- end -}}
{{- $least := $v.autoscaling.enabled | ternary $v.autoscaling.minReplicas $v.replicas | int -}}
{{- /* Of a share, Kubernetes rounds up. */ -}}
{{- $share := toString .minAvailable | trimSuffix "%" | atoi -}}
{{- $stay := kindIs "string" .minAvailable | ternary (div (add (mul $share $least) 99) 100) (int64 .minAvailable) -}}
{{- if and .enabled $min (gt (int $stay) 0) (ge (int $stay) $least) -}}
{{- $problems = append $problems (printf "podDisruptionBudget.minAvailable: %v of %d pods is all of them, and no node could ever be drained: take less, or more pods" .minAvailable $least) -}}
{{- end -}}
{{- if and .enabled $max (has (toString .maxUnavailable) (list "0" "0%" "00%")) -}}
{{- $problems = append $problems (printf "podDisruptionBudget.maxUnavailable: with %v, no node could ever be drained: take 1 or more" .maxUnavailable) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.credentials -}}
{{- if has .name $names -}}
{{- $problems = append $problems (printf "credentials: %s is there twice" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range $key, $part := $v.config -}}
{{- range regexFindAll "/etc/dstack-admission/credentials/[^/\"]+" (toJson $part) -1 | uniq -}}
{{- if not (has (base .) $names) -}}
{{- $problems = append $problems (printf "config.%s: %s is no directory, since credentials has no %s" $key . (base .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $writable := list "/tmp" "/var/lib/dstack-admission" -}}
{{- range $v.admission.extraVolumeMounts -}}
{{- $writable = append $writable (.mountPath | trimSuffix "/") -}}
{{- end -}}
{{- range get (default dict $v.config.audit) "sinks" | default list -}}
{{- $path := get (default dict .file) "path" | default "" | toString -}}
{{- $within := false -}}
{{- range $writable -}}
{{- $within = or $within (hasPrefix (printf "%s/" .) $path) -}}
{{- end -}}
{{- if and $path (not $within) -}}
{{- $problems = append $problems (printf "config.audit.sinks: %s is on the image's read-only file system: mount a volume there by extraVolumes and admission.extraVolumeMounts" $path) -}}
{{- end -}}
{{- end -}}
{{- $needed := get (default dict $v.config.limits) "gracePeriod" | default "25s" | toString | include "dstack-admission.seconds" | int -}}
{{- $needed = add $needed ($sidecar | ternary 0 $v.standalone.preStopSeconds | int) -}}
{{- if le (int $v.terminationGracePeriodSeconds) (int $needed) -}}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds: reviews in hand are given %d s (config.limits.gracePeriod and standalone.preStopSeconds), so this must be more" (int $needed)) -}}
{{- end -}}
{{- $fixed := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "app.kubernetes.io/version" "helm.sh/chart" -}}
{{- range $key, $labels := dict "commonLabels" $v.commonLabels "podLabels" $v.podLabels -}}
{{- range $label, $_ := $labels -}}
{{- if has $label $fixed -}}
{{- $problems = append $problems (printf "%s: %s is set by the chart" $key $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $v.metrics -}}
{{- $scraped := or .serviceMonitor.enabled .podMonitor.enabled -}}
{{- if and $scraped (not .enabled) -}}
{{- $problems = append $problems "metrics.enabled: a monitor has nothing to scrape without it" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled .podMonitor.enabled -}}
{{- $problems = append $problems "metrics.podMonitor.enabled: metrics.serviceMonitor is enabled as well, and everything would be counted twice" -}}
{{- end -}}
{{- if has (int .port) (list 3000 8443) -}}
{{- $problems = append $problems (printf "metrics.port: %d is taken" (int .port)) -}}
{{- end -}}
{{- if and (or $scraped .prometheusRule.enabled) (not ($.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- $problems = append $problems "metrics: this cluster does not know monitoring.coreos.com/v1: install the Prometheus operator first, or pass --api-versions monitoring.coreos.com/v1 to helm template" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.certificates.source "certManager") (not ($.Capabilities.APIVersions.Has "cert-manager.io/v1")) -}}
{{- $problems = append $problems "certificates.source: this cluster does not know cert-manager.io/v1: install cert-manager first, or pass --api-versions cert-manager.io/v1 to helm template" -}}
{{- end -}}
{{- $names = list -}}
{{- range $plugin := default list $v.config.plugins -}}
{{- range concat (list $plugin) (default list (get $plugin "fanOut")) -}}
{{- if and $v.canary.enabled (eq (toString (get . "name")) "canary") -}}
{{- $problems = append $problems "config.plugins: the name canary is taken by canary.enabled" -}}
{{- end -}}
{{- if and (hasKey . "name") (has (get . "name") $names) -}}
{{- $problems = append $problems (printf "config.plugins: two plugins have the name %s" (get . "name")) -}}
{{- end -}}
{{- $names = append $names (get . "name") -}}
{{- if and (hasKey . "python") (not (or $v.image.python $v.image.digest (contains "python" $v.image.tag))) -}}
{{- $problems = append $problems (printf "config.plugins: %s is a Python plugin, which needs image.python, or an image.tag with python in it" (toString (get . "name"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $part := "[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*" -}}
{{- $image := printf "^(([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\\[[0-9a-f:]+\\])(:[0-9]+)?/)?%s(/%s)*$" $part $part -}}
{{- range $key, $repository := $sidecar | ternary (dict "image" $v.image.repository "server.image" $v.server.image.repository) (dict "image" $v.image.repository) -}}
{{- if not (regexMatch $image $repository) -}}
{{- $problems = append $problems (printf "%s.repository: %s is no name of an image: write it in lower case, with its registry and without https://, its tag in %s.tag and its digest in %s.digest" $key $repository $key $key) -}}
{{- end -}}
{{- end -}}
{{- if eq (toString (get $v "enabled")) "false" -}}
{{- $problems = append $problems "enabled: is for the `condition` of a chart around this one; to have nothing, uninstall the release" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "dstack-admission.fullname" .)) -}}
{{- $problems = append $problems (printf "fullnameOverride: the name of a Service begins with a letter, and the release's name %s does not" .Release.Name) -}}
{{- end -}}
{{- if and (or $v.metrics.enabled (not $sidecar)) (regexMatch "^127[.]|^\\[::1\\]$" (default "" $v.admission.bindAddress)) -}}
{{- $problems = append $problems "admission.bindAddress: nobody outside of the pod reaches loopback, the kubelet with its probes neither" -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\nThe values cannot be used:\n- %s\n" (join "\n- " $problems)) -}}
{{- end -}}
{{- end -}}
