{{/* The pod: what is the same in both modes, and the containers. */}}

{{- define "dstack-admission.pod" -}}
{{- $v := .Values -}}
{{- $sidecar := eq $v.mode "sidecar" -}}
serviceAccountName: {{ include "dstack-admission.serviceAccount" . | quote }}
automountServiceAccountToken: false
# Kubernetes' variables of a Service called dstack-server would be taken for the server's own settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
{{- with $v.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $own := dict "matchLabels" (include "dstack-admission.selector" $ | fromYaml) }}
  - {{ dict "labelSelector" (default $own .labelSelector) | merge (omit . "labelSelector") | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- if $sidecar }}
initContainers:
  {{- include "dstack-admission.serverConfigContainer" . | nindent 2 }}
  {{- if ne $v.certificates.source "made" }}
  {{- include "dstack-admission.trustContainer" . | nindent 2 }}
  {{- end }}
  {{- with $v.extraInitContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # A native sidecar: the server starts once the startup probe has passed, and ends before it.
  {{- include "dstack-admission.container" . | nindent 2 }}
containers:
  {{- include "dstack-admission.serverContainer" . | nindent 2 }}
  {{- with $v.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- else }}
{{- with $v.extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  {{- include "dstack-admission.container" . | nindent 2 }}
  {{- with $v.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
volumes:
  {{- include "dstack-admission.volumes" . | nindent 2 }}
{{- end -}}

{{- define "dstack-admission.container" -}}
{{- $v := .Values -}}
{{- $sidecar := eq $v.mode "sidecar" -}}
- name: dstack-admission
  image: {{ include "dstack-admission.image" . | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy | quote }}
  {{- if $sidecar }}
  restartPolicy: Always
  {{- end }}
  args: ["serve", "--config", "/etc/dstack-admission/config/configuration.yaml"]
  {{- if or (not $sidecar) $v.metrics.enabled }}
  ports:
    {{- if not $sidecar }}
    - name: https
      containerPort: 8443
    {{- end }}
    {{- if $v.metrics.enabled }}
    - name: admin
      containerPort: {{ int $v.metrics.port }}
    {{- end }}
  {{- end }}
  {{- with $v.admission.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.admission.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  startupProbe:
    {{- include "dstack-admission.probe" (dict "root" . "path" "/readyz" "probe" $v.admission.startupProbe) | nindent 4 }}
  livenessProbe:
    {{- include "dstack-admission.probe" (dict "root" . "path" "/livez" "probe" $v.admission.livenessProbe) | nindent 4 }}
  readinessProbe:
    {{- include "dstack-admission.probe" (dict "root" . "path" "/readyz" "probe" $v.admission.readinessProbe) | nindent 4 }}
  {{- if and (not $sidecar) (gt (int $v.standalone.preStopSeconds) 0) (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
  lifecycle:
    preStop:
      sleep:
        seconds: {{ int $v.standalone.preStopSeconds }}
  {{- end }}
  {{- with $v.admission.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.admission.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: config
      mountPath: /etc/dstack-admission/config
      readOnly: true
    - name: state
      mountPath: /var/lib/dstack-admission
    - name: tmp
      mountPath: /tmp
    {{- if ne $v.certificates.source "made" }}
    - name: tls
      mountPath: /etc/dstack-admission/tls
      readOnly: true
    {{- end }}
    {{- if $v.auth.existingSecret }}
    - name: auth
      mountPath: /etc/dstack-admission/auth
      readOnly: true
    {{- end }}
    {{- range $v.credentials }}
    - name: {{ printf "credentials-%s" .name | quote }}
      mountPath: {{ printf "/etc/dstack-admission/credentials/%s" .name | quote }}
      readOnly: true
    {{- end }}
    {{- with $v.admission.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* On the pod's address where that is served; else by the binary on loopback. Not by the configuration, which may have
another port some time before the pod has. */}}
{{- define "dstack-admission.probe" -}}
{{- if .root.Values.metrics.enabled -}}
httpGet:
  path: {{ .path }}
  port: admin
{{- else -}}
exec:
  command: ["/usr/bin/dstack-admission", "healthcheck", "--admin", {{ printf "127.0.0.1:%d" (int .root.Values.metrics.port) | quote }}{{ if eq .path "/livez" }}, "--live"{{ end }}]
{{- end }}
{{ toYaml .probe }}
{{- end -}}

{{- define "dstack-admission.serverContainer" -}}
{{- $v := .Values -}}
- name: dstack-server
  image: {{ include "dstack-admission.serverImage" . | quote }}
  imagePullPolicy: {{ $v.server.image.pullPolicy | quote }}
  ports:
    - name: http
      containerPort: 3000
  env:
    {{- include "dstack-admission.serverTrustEnv" . | nindent 4 }}
    {{- with $v.server.proxy.httpProxy }}
    - name: HTTP_PROXY
      value: {{ . | quote }}
    {{- end }}
    {{- with $v.server.proxy.httpsProxy }}
    - name: HTTPS_PROXY
      value: {{ . | quote }}
    {{- end }}
    {{- with $v.server.url }}
    - name: DSTACK_SERVER_URL
      value: {{ . | quote }}
    {{- end }}
    {{- with $v.server.adminToken.existingSecret }}
    - name: DSTACK_SERVER_ADMIN_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ . | quote }}
          key: {{ $v.server.adminToken.key | quote }}
    {{- end }}
    {{- with $v.server.database.existingSecret }}
    - name: DSTACK_DATABASE_URL
      valueFrom:
        secretKeyRef:
          name: {{ . | quote }}
          key: {{ $v.server.database.key | quote }}
    {{- end }}
    {{- with $v.server.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.server.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  startupProbe:
    {{- include "dstack-admission.serverProbe" $v.server.startupProbe | nindent 4 }}
  livenessProbe:
    {{- include "dstack-admission.serverProbe" $v.server.livenessProbe | nindent 4 }}
  readinessProbe:
    {{- include "dstack-admission.serverProbe" $v.server.readinessProbe | nindent 4 }}
  {{- with $v.server.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.server.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: data
      mountPath: /root/.dstack/server
    # The trust. The keys beside it can be read by dstack-admission alone.
    - name: state
      mountPath: /var/lib/dstack-admission
      readOnly: true
    {{- if $v.auth.existingSecret }}
    - name: netrc
      mountPath: /run/dstack-admission
      readOnly: true
    {{- end }}
    {{- with $v.server.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What the server needs to find dstack-admission and to believe it. The directory is for dstack's own calls, the file for
boto3, which takes no directory. */}}
{{- define "dstack-admission.serverTrustEnv" -}}
- name: DSTACK_PLUGIN_SERVICE_URI
  value: {{ include "dstack-admission.uri" . | quote }}
- name: REQUESTS_CA_BUNDLE
  value: /var/lib/dstack-admission/trust
- name: AWS_CA_BUNDLE
  value: /var/lib/dstack-admission/trust.pem
{{- $direct := concat (list "localhost" "127.0.0.1" "::1") (default list .Values.server.proxy.noProxy) | uniq | join "," }}
- name: NO_PROXY
  value: {{ $direct | quote }}
- name: no_proxy
  value: {{ $direct | quote }}
{{- if .Values.auth.existingSecret }}
- name: NETRC
  value: /run/dstack-admission/netrc
{{- end }}
{{- end -}}

{{- define "dstack-admission.serverProbe" -}}
httpGet:
  path: /healthcheck
  port: http
{{ toYaml . }}
{{- end -}}

{{/* Writes the server's config.yml with `rest_plugin` in it, and its netrc file. dstack's own Python does it, which the
first line of the dstack command names. */}}
{{- define "dstack-admission.serverConfigContainer" -}}
{{- $v := .Values -}}
- name: server-config
  image: {{ include "dstack-admission.serverImage" . | quote }}
  imagePullPolicy: {{ $v.server.image.pullPolicy | quote }}
  command:
    - /bin/sh
    - -ec
    - exec "$(sed -n '1s/^#! *//p' "$(command -v dstack)")" -c "$0"
    - |
      {{- .Files.Get "files/server-config.py" | trim | nindent 6 }}
  env:
    - name: CONFIG_GIVEN
      value: {{ printf "/etc/dstack-server/%s" $v.server.configKey | quote }}
    - name: CONFIG_WRITTEN
      value: /root/.dstack/server/config.yml
    {{- if $v.auth.existingSecret }}
    - name: NETRC_WRITTEN
      value: /run/dstack-admission/netrc
    - name: NETRC_MACHINE
      value: localhost
    - name: NETRC_LOGIN
      value: {{ $v.auth.username | quote }}
    - name: NETRC_PASSWORD_FILE
      value: {{ printf "/etc/dstack-admission/auth/%s" $v.auth.passwordKey | quote }}
    {{- end }}
  resources:
    requests:
      cpu: 50m
      memory: 64Mi
    limits:
      memory: 256Mi
  {{- with $v.server.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: data
      mountPath: /root/.dstack/server
    {{- if include "dstack-admission.serverConfigSecret" . }}
    - name: server-config
      mountPath: /etc/dstack-server
      readOnly: true
    {{- end }}
    {{- if $v.auth.existingSecret }}
    - name: netrc
      mountPath: /run/dstack-admission
    - name: auth
      mountPath: /etc/dstack-admission/auth
      readOnly: true
    {{- end }}
{{- end -}}

{{/* Where the certificate is given, so is its CA: joins it with the public ones. */}}
{{- define "dstack-admission.trustContainer" -}}
{{- $v := .Values -}}
- name: trust
  image: {{ include "dstack-admission.image" . | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy | quote }}
  args: ["certs", "bundle", "--directory", "/var/lib/dstack-admission", "/etc/dstack-admission/tls/ca.crt"]
  resources:
    requests:
      cpu: 50m
      memory: 32Mi
    limits:
      memory: 128Mi
  {{- with $v.admission.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: tls
      mountPath: /etc/dstack-admission/tls
      readOnly: true
    - name: state
      mountPath: /var/lib/dstack-admission
{{- end -}}

{{- define "dstack-admission.volumes" -}}
{{- $v := .Values -}}
{{- $sidecar := eq $v.mode "sidecar" -}}
{{- $name := include "dstack-admission.fullname" . -}}
- name: config
  configMap:
    name: {{ printf "%s-config" $name | quote }}
- name: state
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- with include "dstack-admission.certificateSecret" . }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0444
{{- end }}
{{- if $v.auth.existingSecret }}
- name: auth
  secret:
    secretName: {{ $v.auth.existingSecret | quote }}
    defaultMode: 0444
    items:
      - key: {{ $v.auth.passwordKey | quote }}
        path: {{ $v.auth.passwordKey | quote }}
{{- end }}
{{- range $v.credentials }}
- name: {{ printf "credentials-%s" .name | quote }}
  secret:
    secretName: {{ .secretName | quote }}
    defaultMode: 0444
{{- end }}
{{- if $sidecar }}
- name: data
  {{- if $v.server.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-data" $name) $v.server.persistence.existingClaim | quote }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- with include "dstack-admission.serverConfigSecret" . }}
- name: server-config
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0400
{{- end }}
{{- if $v.auth.existingSecret }}
- name: netrc
  emptyDir:
    medium: Memory
{{- end }}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
